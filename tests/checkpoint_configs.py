"""Values of the configuration files of published checkpoints, as far as they differ from SDXL base's.

The names are those of the repositories of the Hugging Face hub.
"""

from __future__ import annotations

from typing import Any, Final

from intaglio_export.weights.seeded import ARCHITECTURES

_BASE: Final = ARCHITECTURES["sdxl-base-1.0"]
_ABOUT: Final = {"_diffusers_version": "0.19.0.dev0"}
UNET: Final[dict[str, Any]] = {
    **_BASE["unet"],
    **_ABOUT,
    "_class_name": "UNet2DConditionModel",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "upcast_attention": None,
}
"""stabilityai/stable-diffusion-xl-base-1.0, as the later versions of diffusers write it."""
VAE: Final[dict[str, Any]] = {
    **_BASE["vae"],
    **_ABOUT,
    "_class_name": "AutoencoderKL",
    "_name_or_path": "vae",
}
CONTROLNET: Final[dict[str, Any]] = {
    **_BASE["controlnet"],
    **_ABOUT,
    "_class_name": "ControlNetModel",
    "class_embed_type": None,
    "conditioning_channels": 3,
    "downsample_padding": 1,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "global_pool_conditions": False,
    "mid_block_scale_factor": 1,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "upcast_attention": None,
}
"""diffusers/controlnet-canny-sdxl-1.0; xinsir/controlnet-openpose-sdxl-1.0 has the same values."""
UNION: Final[dict[str, Any]] = {
    **CONTROLNET,
    "_class_name": "ControlNetUnionModel",
    "num_control_type": 6,
    "num_proj_channel": 320,
    "num_trans_channel": 320,
    "num_trans_head": 8,
    "num_trans_layer": 1,
}
"""A ControlNet-Union as diffusers saves it."""
TEXT: Final[dict[str, Any]] = {
    **_BASE["text_encoder"],
    "architectures": ["CLIPTextModel"],
    "dropout": 0.0,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "model_type": "clip_text_model",
    "torch_dtype": "float16",
    "transformers_version": "4.32.0.dev0",
}
PIPELINE: Final[dict[str, Any]] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
ACCEPTED: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "stabilityai/stable-diffusion-xl-base-1.0 unet": ("unet", UNET),
    "stabilityai/stable-diffusion-xl-base-1.0 vae": ("vae", VAE),
    "stabilityai/stable-diffusion-xl-base-1.0": ("pipeline", PIPELINE),
    "stabilityai/stable-diffusion-xl-base-1.0 text_encoder": ("text_encoder", TEXT),
    "madebyollin/sdxl-vae-fp16-fix": ("vae", VAE | {"force_upcast": False, "sample_size": 512}),
    "diffusers/controlnet-canny-sdxl-1.0": ("controlnet", CONTROLNET),
    "xinsir/controlnet-union-sdxl-1.0": ("controlnet_union", CONTROLNET | {"num_control_type": 6}),
    "a ControlNet-Union that diffusers saved": ("controlnet_union", UNION | {"num_control_type": 8}),
    "playgroundai/playground-v2.5-1024px-aesthetic vae": (
        "vae",
        VAE
        | {
            "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
            "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
            "scaling_factor": 0.5,
        },
    ),
    "segmind/SSD-1B unet": (
        "unet",
        UNET
        | {
            "mid_block_type": "UNetMidBlock2D",
            "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
            "transformer_layers_per_block": [[1], [2, 2], [4, 4]],
        },
    ),
}
"""Component and values by repository."""
REFUSED: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "stabilityai/stable-diffusion-xl-refiner-1.0": (
        "pipeline",
        PIPELINE
        | {
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "force_zeros_for_empty_prompt": False,
            "requires_aesthetics_score": True,
            "text_encoder": [None, None],
            "tokenizer": [None, None],
        },
        "SDXL refiner",
    ),
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1 unet": (
        "unet",
        UNET | {"in_channels": 9},
        "inpainting",
    ),
    "latent-consistency/lcm-sdxl unet": ("unet", UNET | {"time_cond_proj_dim": 256}, "LCM LoRA"),
    "runwayml/stable-diffusion-v1-5 unet": (
        "unet",
        {
            "_class_name": "UNet2DConditionModel",
            "attention_head_dim": 8,
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768,
            "in_channels": 4,
        },
        "no addition_embed_type, .*no SDXL network",
    ),
    "a ControlNet-Union of which a type is said": (
        "controlnet",
        CONTROLNET | {"num_control_type": 6},
        "`union` for a ControlNet-Union",
    ),
    "a ControlNet of Stable Diffusion 1.5": (
        "controlnet",
        CONTROLNET | {"addition_embed_type": None},
        "addition_embed_type: None",
    ),
    "madebyollin/taesdxl": (
        "vae",
        {"_class_name": "AutoencoderTiny", "latent_channels": 4},
        "AutoencoderTiny",
    ),
    "a VAE of FLUX.1": ("vae", VAE | {"latent_channels": 16, "shift_factor": 0.1159}, "of another model"),
    "Kwai-Kolors/Kolors-diffusers": ("pipeline", PIPELINE | {"_class_name": "KolorsPipeline"}, "SDXL only"),
    "a pipeline without a text encoder": (
        "pipeline",
        PIPELINE | {"text_encoder": [None, None]},
        "all of its components",
    ),
}
"""Component, values and what the refusal says."""
