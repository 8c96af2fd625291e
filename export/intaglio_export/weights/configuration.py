"""What a checkpoint's configuration files say, key by key: used, without effect here, or refused by name.

A configuration value that changes the picture and that nobody reads would make wrong pictures in silence. So
every key of every component stands in `CONFIGURATION` with one of four rules:

    BUILT          diffusers or transformers build the network from it, and the exported graph is that network
    READ           intaglio's own code reads it
    without(why)   it changes no picture; `why` is the reason
    only(...)      intaglio computes one of these values only; any other value is refused

A key that the table does not know is refused, unless its value is one that says nothing (null, false, empty).
The keys are those of diffusers 0.36 and transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from intaglio.errors import ConfigError

__all__ = ["BUILT", "CONFIGURATION", "READ", "Rule", "check_configuration"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with one key of a configuration file."""

    kind: Literal["built", "read", "without effect", "only"]
    allowed: tuple[Any, ...] = ()
    """Of `only`: every value that is computed."""
    why: str = ""
    """Of `without effect`: the reason. Of `only`: what another value means, and what to do."""


BUILT: Final = Rule("built")
READ: Final = Rule("read")


def without(why: str) -> Rule:
    """A key that changes no picture."""
    return Rule("without effect", why=why)


def only(*allowed: Any, why: str) -> Rule:
    """A key of which some values are computed; `why` says what the others are."""
    return Rule("only", allowed, why)


_SILENT: Final[tuple[Any, ...]] = (None, False, [], {}, "")
"""Values that say nothing: an unknown key may have them."""
_ABOUT_THE_FILE: Final = without("says who wrote the file")
_TRAINING: Final = without("is of training only")
_SIZE: Final = without("is a default size; the deployment's `profiles.sizes` decide")
_INPUTS: Final = "the UNet needs an input that text-to-image does not have"
_CROSS_ATTENTION: Final = "intaglio computes SDXL's cross-attention only; take an SDXL checkpoint"

_BLOCKS: Final[Mapping[str, Rule]] = {
    "_class_name": _ABOUT_THE_FILE,
    "_diffusers_version": _ABOUT_THE_FILE,
    "_name_or_path": _ABOUT_THE_FILE,
    "_use_default_values": _ABOUT_THE_FILE,
    "act_fn": BUILT,
    "addition_embed_type": only("text_time", why="this is no SDXL network"),
    "addition_embed_type_num_heads": without("is read by diffusers for addition_embed_type text only"),
    "addition_time_embed_dim": READ,
    "attention_head_dim": READ,
    "block_out_channels": READ,
    "class_embed_type": only(None, why=f"{_INPUTS} (class labels)"),
    "cross_attention_dim": BUILT,
    "down_block_types": READ,
    "downsample_padding": BUILT,
    "encoder_hid_dim": only(None, why=_CROSS_ATTENTION),
    "encoder_hid_dim_type": only(None, why=_CROSS_ATTENTION),
    "flip_sin_to_cos": BUILT,
    "freq_shift": BUILT,
    "layers_per_block": READ,
    "mid_block_scale_factor": BUILT,
    "mid_block_type": READ,
    "norm_eps": BUILT,
    "norm_num_groups": BUILT,
    "num_attention_heads": READ,
    "num_class_embeds": only(None, why=f"{_INPUTS} (class labels)"),
    "only_cross_attention": only(False, why=_CROSS_ATTENTION),
    "projection_class_embeddings_input_dim": READ,
    "resnet_time_scale_shift": BUILT,
    "transformer_layers_per_block": READ,
    "upcast_attention": without("is ignored by diffusers' default attention too"),
    "use_linear_projection": BUILT,
}
"""Keys that a UNet and a ControlNet share."""

_UNET: Final[Mapping[str, Rule]] = {
    **_BLOCKS,
    "attention_type": only(
        "default", why="gated attention (GLIGEN) needs inputs that intaglio does not have"
    ),
    "center_input_sample": BUILT,
    "class_embeddings_concat": only(False, why=f"{_INPUTS} (class labels)"),
    "conv_in_kernel": BUILT,
    "conv_out_kernel": BUILT,
    "cross_attention_norm": only(None, False, why=_CROSS_ATTENTION),
    "dropout": _TRAINING,
    "dual_cross_attention": only(False, why=_CROSS_ATTENTION),
    "in_channels": only(
        4,
        why="9 channels are an inpainting UNet and 8 an editing one, which need a picture; "
        "take the text-to-image checkpoint that it was made from",
    ),
    "mid_block_only_cross_attention": only(None, False, why=_CROSS_ATTENTION),
    "out_channels": only(4, why="intaglio's solvers take a prediction of 4 channels"),
    "resnet_out_scale_factor": BUILT,
    "resnet_skip_time_act": BUILT,
    "reverse_transformer_layers_per_block": READ,
    "sample_size": _SIZE,
    "time_cond_proj_dim": only(
        None,
        why="this is a distilled UNet (LCM) that takes guidance as an embedding; "
        "use SDXL base with the LCM LoRA instead",
    ),
    "time_embedding_act_fn": BUILT,
    "time_embedding_dim": BUILT,
    "time_embedding_type": BUILT,
    "timestep_post_act": BUILT,
    "up_block_types": READ,
}

_CONTROLNET: Final[Mapping[str, Rule]] = {
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
    "num_control_type": only(None, why="ControlNet-Union is not supported; take a ControlNet of one type"),
    "sample_size": _SIZE,
}

_VAE: Final[Mapping[str, Rule]] = {
    "_class_name": _ABOUT_THE_FILE,
    "_diffusers_version": _ABOUT_THE_FILE,
    "_name_or_path": _ABOUT_THE_FILE,
    "_use_default_values": _ABOUT_THE_FILE,
    "act_fn": BUILT,
    "block_out_channels": READ,
    "down_block_types": BUILT,
    "force_upcast": READ,
    "in_channels": only(3, why="a picture has three channels"),
    "latent_channels": only(4, why="SDXL's latents have 4 channels; this VAE is of another model"),
    "latents_mean": READ,
    "latents_std": READ,
    "layers_per_block": BUILT,
    "mid_block_add_attention": BUILT,
    "norm_num_groups": BUILT,
    "out_channels": only(3, why="a picture has three channels"),
    "sample_size": _SIZE,
    "scaling_factor": READ,
    "shift_factor": only(None, 0, 0.0, why="SDXL has no shift; this VAE is of another model"),
    "up_block_types": BUILT,
    "use_post_quant_conv": BUILT,
    "use_quant_conv": BUILT,
}

_GENERATION: Final = without("is of generating text")
_TEXT_ENCODER: Final[Mapping[str, Rule]] = {
    "_name_or_path": _ABOUT_THE_FILE,
    "architectures": _ABOUT_THE_FILE,
    "attention_dropout": _TRAINING,
    "bos_token_id": without("the tokenizer's own is used"),
    "dropout": _TRAINING,
    "dtype": without("the deployment's `precision` decides"),
    "eos_token_id": BUILT,
    "gradient_checkpointing": _TRAINING,
    "hidden_act": BUILT,
    "hidden_size": READ,
    "initializer_factor": _TRAINING,
    "initializer_range": _TRAINING,
    "intermediate_size": BUILT,
    "layer_norm_eps": BUILT,
    "max_position_embeddings": READ,
    "model_type": only("clip_text_model", why="SDXL's text encoders are CLIP's"),
    "num_attention_heads": BUILT,
    "num_hidden_layers": BUILT,
    "pad_token_id": without("the tokenizer's own is used"),
    "projection_dim": READ,
    "tie_word_embeddings": without("a text encoder has no output embedding"),
    "torch_dtype": without("the deployment's `precision` decides"),
    "transformers_version": _ABOUT_THE_FILE,
    "use_cache": _GENERATION,
    "vocab_size": BUILT,
}

_PIPELINE: Final[Mapping[str, Rule]] = {
    "_class_name": _ABOUT_THE_FILE,
    "_diffusers_version": _ABOUT_THE_FILE,
    "_name_or_path": _ABOUT_THE_FILE,
    "add_watermarker": without("intaglio applies no watermark"),
    "feature_extractor": without("is of image prompts and safety checks, which no request uses"),
    "force_zeros_for_empty_prompt": READ,
    "image_encoder": without("is of image prompts, which no request uses"),
    "requires_aesthetics_score": only(
        False, why="this is the SDXL refiner, which improves a picture; take the SDXL base"
    ),
    "scheduler": READ,
    "text_encoder": READ,
    "text_encoder_2": READ,
    "tokenizer": READ,
    "tokenizer_2": READ,
    "unet": READ,
    "vae": READ,
}

CONFIGURATION: Final[Mapping[str, Mapping[str, Rule]]] = {
    "unet": _UNET,
    "controlnet": _CONTROLNET,
    "vae": _VAE,
    "text_encoder": _TEXT_ENCODER,
    "text_encoder_2": _TEXT_ENCODER,
    "pipeline": _PIPELINE,
}
"""Rules by component (`pipeline` is model_index.json) and key; `SchedulerConfig` has the scheduler's."""


def check_configuration(component: str, config: Mapping[str, Any], *, source: str) -> None:
    """Refuse a configuration that asks for something intaglio does not compute.

    `component` is a key of `CONFIGURATION`, `config` the values of its file, `source` where they were read.

    Raises:
        ConfigError: names the key, its value, the values that are computed, and what to do.
    """
    rules = CONFIGURATION[component]
    for key, value in config.items():
        rule = rules.get(key)
        if rule is None:
            if value not in _SILENT:
                raise ConfigError(
                    f"{source}: {component} says {key}: {value!r}, which intaglio does not know; "
                    "it may change the picture, so the checkpoint is not used"
                )
        elif rule.kind == "only" and value not in rule.allowed:
            allowed = " or ".join(repr(one) for one in rule.allowed)
            raise ConfigError(
                f"{source}: {component} says {key}: {value!r}; supported is {allowed}: {rule.why}"
            )
