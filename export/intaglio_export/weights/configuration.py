"""What a checkpoint's configuration files say, key by key: used, without effect here, or refused by name.

A configuration value that changes the picture and that nobody reads would make wrong pictures in silence. So
every key of every component has a rule of `intaglio.contract.configuration_rules`. The keys and defaults are
those of diffusers 0.36 and transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from intaglio.contract.configuration_rules import (
    BUILT,
    Rule,
    Rules,
    check_values,
    only,
    only_each,
    read,
    values_read,
    without,
)
from intaglio.errors import ConfigError

__all__ = ["CONFIGURATION", "check_configuration", "configuration_read"]

_ABOUT_THE_FILE: Final = without("says who wrote the file")
_TRAINING: Final = without("is of training only")
_SIZE: Final = without("is a default size; the deployment's `profiles.sizes` decide")
_INPUTS: Final = "the network needs an input that text-to-image does not have"
_CROSS_ATTENTION: Final = "intaglio computes SDXL's cross-attention only; take an SDXL checkpoint"
_WHICH_CONTROLNET: Final = (
    "say `type` for a ControlNet of one type and `union` for a ControlNet-Union; others are not supported"
)
_BLOCK_TYPES: Final = "intaglio computes SDXL's blocks only; take an SDXL checkpoint"
_FIRST_BLOCKS: Final = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_LAST_BLOCKS: Final = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")


def _class(name: str, why: str) -> Rule:
    """The class that a component's file names; a file without a name is taken for one of it."""
    return only(name, why=why)


_OF_A_FILE: Final[Rules] = {
    "_diffusers_version": _ABOUT_THE_FILE,
    "_name_or_path": _ABOUT_THE_FILE,
    "_use_default_values": _ABOUT_THE_FILE,
}

_BLOCKS: Final[Rules] = {
    **_OF_A_FILE,
    "act_fn": BUILT,
    "addition_embed_type": only(
        "text_time", default=None, why="this is no SDXL network; take an SDXL checkpoint"
    ),
    "addition_embed_type_num_heads": without("is read by diffusers for addition_embed_type text only"),
    "addition_time_embed_dim": read(None),
    "attention_head_dim": read(8),
    "block_out_channels": read((320, 640, 1280, 1280)),
    "class_embed_type": only(None, why=f"{_INPUTS} (class labels)"),
    "cross_attention_dim": read(1280),
    "down_block_types": only_each(
        "DownBlock2D", "CrossAttnDownBlock2D", default=_FIRST_BLOCKS, why=_BLOCK_TYPES
    ),
    "downsample_padding": only(1, why="another padding changes the sizes of the residuals"),
    "encoder_hid_dim": only(None, why=_CROSS_ATTENTION),
    "encoder_hid_dim_type": only(None, why=_CROSS_ATTENTION),
    "flip_sin_to_cos": BUILT,
    "freq_shift": BUILT,
    "layers_per_block": read(2),
    "mid_block_scale_factor": BUILT,
    "mid_block_type": only(
        "UNetMidBlock2DCrossAttn", "UNetMidBlock2D", why="intaglio computes SDXL's middle block or SSD-1B's"
    ),
    "norm_eps": BUILT,
    "norm_num_groups": BUILT,
    "num_class_embeds": only(None, why=f"{_INPUTS} (class labels)"),
    "only_cross_attention": only_each(False, default=False, why=_CROSS_ATTENTION),
    "projection_class_embeddings_input_dim": read(None),
    "resnet_time_scale_shift": BUILT,
    "transformer_layers_per_block": read(1),
    "upcast_attention": without("is ignored by diffusers' default attention too"),
    "use_linear_projection": BUILT,
}
"""Keys that a UNet and a ControlNet share."""

_UNET: Final[Rules] = {
    "_class_name": _class("UNet2DConditionModel", "intaglio serves SDXL's UNet"),
    # Of this key the values name the kind of checkpoint best, so it comes before those of the blocks.
    "in_channels": only(
        4,
        why="9 channels are an inpainting UNet and 8 an editing one, which need a picture; "
        "take the text-to-image checkpoint that it was made from",
    ),
    "time_cond_proj_dim": only(
        None,
        why="this is a distilled UNet (LCM) that takes guidance as an embedding; "
        "use SDXL base with the LCM LoRA instead",
    ),
    **_BLOCKS,
    "attention_type": only(
        "default", why="gated attention (GLIGEN) needs inputs that intaglio does not have"
    ),
    "center_input_sample": BUILT,
    "class_embeddings_concat": only(False, why=f"{_INPUTS} (class labels)"),
    "conv_in_kernel": only(3, why="another kernel may change the size of a picture"),
    "conv_out_kernel": only(3, why="another kernel may change the size of a picture"),
    "cross_attention_norm": only(None, why=_CROSS_ATTENTION),
    "dropout": _TRAINING,
    "dual_cross_attention": only(False, why=_CROSS_ATTENTION),
    "mid_block_only_cross_attention": only(None, False, why=_CROSS_ATTENTION),
    "num_attention_heads": only(None, why="diffusers refuses it too; attention_head_dim has the heads"),
    "out_channels": only(4, why="intaglio's solvers take a prediction of 4 channels"),
    "resnet_out_scale_factor": BUILT,
    "resnet_skip_time_act": BUILT,
    "reverse_transformer_layers_per_block": read(None),
    "sample_size": _SIZE,
    "time_embedding_act_fn": BUILT,
    "time_embedding_dim": BUILT,
    "time_embedding_type": BUILT,
    "timestep_post_act": BUILT,
    "up_block_types": only_each("UpBlock2D", "CrossAttnUpBlock2D", default=_LAST_BLOCKS, why=_BLOCK_TYPES),
}

_CONTROL: Final[Rules] = {
    **_BLOCKS,
    "conditioning_channels": only(3, why="intaglio gives a ControlNet an RGB map"),
    "conditioning_embedding_out_channels": BUILT,
    "controlnet_conditioning_channel_order": only(
        "rgb", why="this ControlNet was trained on maps with blue first; intaglio gives red first"
    ),
    "global_pool_conditions": only(
        False, why="this ControlNet pools its residuals (shuffle), which intaglio does not"
    ),
    "in_channels": only(4, why="an inpainting ControlNet needs a picture"),
    "num_attention_heads": read(None),
    "sample_size": _SIZE,
}
"""Keys that a ControlNet of one type and a ControlNet-Union share."""

_CONTROLNET: Final[Rules] = {
    "_class_name": _class("ControlNetModel", _WHICH_CONTROLNET),
    "num_control_type": only(None, why=_WHICH_CONTROLNET),
    **_CONTROL,
}

_UNION: Final[Rules] = {
    # The published unions name the class of a plain ControlNet.
    "_class_name": only("ControlNetUnionModel", "ControlNetModel", why=_WHICH_CONTROLNET),
    **_CONTROL,
    "num_control_type": read(6),
    "num_proj_channel": read(320),
    "num_trans_channel": read(320),
    "num_trans_head": BUILT,
    "num_trans_layer": BUILT,
}

_VAE: Final[Rules] = {
    "_class_name": _class("AutoencoderKL", "intaglio serves SDXL's autoencoder; take an AutoencoderKL"),
    **_OF_A_FILE,
    "act_fn": BUILT,
    "block_out_channels": read((64,)),
    "down_block_types": only_each("DownEncoderBlock2D", default=("DownEncoderBlock2D",), why=_BLOCK_TYPES),
    "force_upcast": without("a float16 build divides the activations that float16 cannot hold"),
    "in_channels": only(3, why="a picture has three channels"),
    "latent_channels": only(4, why="SDXL's latents have 4 channels; this VAE is of another model"),
    "latents_mean": read(None),
    "latents_std": read(None),
    "layers_per_block": BUILT,
    "mid_block_add_attention": BUILT,
    "norm_num_groups": BUILT,
    "out_channels": only(3, why="a picture has three channels"),
    "sample_size": _SIZE,
    "scaling_factor": read(0.18215),
    "shift_factor": only(None, 0, why="SDXL has no shift; this VAE is of another model"),
    "up_block_types": only_each("UpDecoderBlock2D", default=("UpDecoderBlock2D",), why=_BLOCK_TYPES),
    "use_post_quant_conv": BUILT,
    "use_quant_conv": BUILT,
}

_GENERATION: Final = without("is of generating text")
_LABELS: Final = without("names the classes of a classifier")
_PRECISION: Final = without("the deployment's `precision` decides")
_TOKENIZER: Final = without("the tokenizer's own is used")
_TEXT_ENCODER: Final[Rules] = {
    "_attn_implementation_autoset": without("names an implementation of the same attention"),
    "_name_or_path": _ABOUT_THE_FILE,
    "architectures": without("model_index.json names the class"),
    "attention_dropout": _TRAINING,
    "bos_token_id": _TOKENIZER,
    "chunk_size_feed_forward": without("cuts the same computation into parts"),
    "dropout": _TRAINING,
    "dtype": _PRECISION,
    "eos_token_id": BUILT,
    "gradient_checkpointing": _TRAINING,
    "hidden_act": BUILT,
    "hidden_size": read(512),
    "id2label": _LABELS,
    "initializer_factor": _TRAINING,
    "initializer_range": _TRAINING,
    "intermediate_size": BUILT,
    "is_encoder_decoder": without("a text encoder has no decoder"),
    "label2id": _LABELS,
    "layer_norm_eps": BUILT,
    "length_penalty": _GENERATION,
    "max_length": _GENERATION,
    "max_position_embeddings": read(77),
    "model_type": only("clip_text_model", why="SDXL's text encoders are CLIP's"),
    "num_attention_heads": BUILT,
    "num_beam_groups": _GENERATION,
    "num_beams": _GENERATION,
    "num_hidden_layers": BUILT,
    "num_return_sequences": _GENERATION,
    "output_hidden_states": without("intaglio asks for the hidden states itself"),
    "pad_token_id": _TOKENIZER,
    "problem_type": without("names the loss of a classifier"),
    "projection_dim": read(512),
    "repetition_penalty": _GENERATION,
    "return_dict": without("is the form of a result"),
    "temperature": _GENERATION,
    "tie_word_embeddings": without("a text encoder has no output embedding"),
    "top_k": _GENERATION,
    "top_p": _GENERATION,
    "torch_dtype": _PRECISION,
    "transformers_version": _ABOUT_THE_FILE,
    "typical_p": _GENERATION,
    "use_cache": _GENERATION,
    "vocab_size": BUILT,
}

_CLASSES: Final[Mapping[str, tuple[list[str], ...]]] = {
    "text_encoder": (["transformers", "CLIPTextModel"],),
    "text_encoder_2": (["transformers", "CLIPTextModelWithProjection"],),
    "tokenizer": (["transformers", "CLIPTokenizer"], ["transformers", "CLIPTokenizerFast"]),
    "tokenizer_2": (["transformers", "CLIPTokenizer"], ["transformers", "CLIPTokenizerFast"]),
    "unet": (["diffusers", "UNet2DConditionModel"],),
    "vae": (["diffusers", "AutoencoderKL"],),
}
"""Library and class of each component of a pipeline; model_index.json has [null, null] for a missing one."""


_PIPELINE: Final[Rules] = {
    # The refiner lacks components too; this key says best what it is.
    "requires_aesthetics_score": only(
        False, why="this is the SDXL refiner, which improves a picture; take the SDXL base"
    ),
    "_class_name": only(
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
        why="intaglio serves SDXL only; take an SDXL checkpoint",
    ),
    **_OF_A_FILE,
    "add_watermarker": without("intaglio applies no watermark"),
    "feature_extractor": without("is of image prompts and safety checks, which no request uses"),
    "force_zeros_for_empty_prompt": read(True),
    "image_encoder": without("is of image prompts, which no request uses"),
    "scheduler": without("scheduler_config.json names the class"),
    **{
        name: only(
            *classes, why="an SDXL pipeline has all of its components; take a checkpoint that has them"
        )
        for name, classes in _CLASSES.items()
    },
}

CONFIGURATION: Final[Mapping[str, Rules]] = {
    "unet": _UNET,
    "controlnet": _CONTROLNET,
    "controlnet_union": _UNION,
    "vae": _VAE,
    "text_encoder": _TEXT_ENCODER,
    "text_encoder_2": _TEXT_ENCODER,
    "pipeline": _PIPELINE,
}
"""Rules by component (`pipeline` is model_index.json) and key; a scheduler's are `SCHEDULER_RULES`."""


def check_configuration(component: str, config: Mapping[str, Any], *, source: str) -> None:
    """Refuse a configuration that asks for something intaglio does not compute.

    `component` is a key of `CONFIGURATION`, `config` the values of its file, `source` where they were read.

    Raises:
        ConfigError: names the key, its value, the values that are computed, and what to do.
    """
    check_values(CONFIGURATION[component], config, what=f"{source}: {component}")
    if component == "vae":
        _check_statistics(config, source=source)


def _check_statistics(config: Mapping[str, Any], *, source: str) -> None:
    """`latents_mean` and `latents_std` have one number for each channel of the latents."""
    for key in ("latents_mean", "latents_std"):
        values = config.get(key)
        channels = config.get("latent_channels", 4)
        if values is not None and len(values) != channels:
            raise ConfigError(f"{source}: vae says {key}: {values!r}; it must have {channels} numbers")


def configuration_read(component: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with diffusers' and transformers' defaults of the absent keys that intaglio reads."""
    return values_read(CONFIGURATION[component], config)
