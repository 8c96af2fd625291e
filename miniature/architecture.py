"""The miniature's networks: every class is the one SDXL uses, with small numbers.

`B` images, `H`, `W` pixels, `h = H/8`, `w = W/8` latents, `T = 77` tokens. Axes and roles are SDXL's (arXiv
2307.01952; stabilityai/stable-diffusion-xl-base-1.0 configs): two CLIP text encoders whose penultimate hidden
states are concatenated to the cross-attention context, the second one's projection as pooled embedding,
`text_time` additional embedding of the pooled embedding and six size ids, down blocks without attention at
full latent size.
"""

# ruff: noqa: PLC0415  (diffusers and transformers are imported only where networks are made; the renderer needs neither)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

IMAGE_SIZE = 256
CONTROL_TYPES = ("pose", "canny", "depth", "segmentation", "normals")

CLIP_VOCABULARY = 49408
BEGIN_TOKEN, END_TOKEN = 49406, 49407
TOKENS = 77
TEXT_WIDTHS = (32, 64)
TIME_ID_WIDTH = 32
POOLED_WIDTH = TEXT_WIDTHS[1]
CONTEXT_WIDTH = sum(TEXT_WIDTHS)
TIME_IDS = 6

UNET: dict[str, Any] = {
    "sample_size": IMAGE_SIZE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64, 112),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (2, 4, 7),  # SDXL's name for the number of heads: 16 channels a head here, 64 there
    "cross_attention_dim": CONTEXT_WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_ID_WIDTH,
    "projection_class_embeddings_input_dim": POOLED_WIDTH + TIME_IDS * TIME_ID_WIDTH,
    "norm_num_groups": 16,
}
# A ControlNet is the UNet's encoder half (`ControlNetModel.from_unet`); this is the embedding of its control
# image.
CONTROL_EMBEDDING_CHANNELS = (8, 16, 24, 32)
AUTOENCODER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (24, 48, 72, 80),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": IMAGE_SIZE,
    "force_upcast": False,
}
# stabilityai/stable-diffusion-xl-base-1.0 scheduler/scheduler_config.json
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": False,
}
# In SDXL's file too, for the schedulers a user may swap in: without them diffusers' DDIM clips its
# prediction.
SCHEDULER_EXTRAS: dict[str, Any] = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "sample_max_value": 1.0,
    "skip_prk_steps": True,
}


def text_config(which: int) -> CLIPTextConfig:
    """CLIP configuration of text encoder 0 or 1."""
    from transformers import CLIPTextConfig

    width = TEXT_WIDTHS[which]
    return CLIPTextConfig(  # type: ignore[no-untyped-call]
        vocab_size=CLIP_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act=("quick_gelu", "gelu")[which],  # as SDXL's two
        projection_dim=width,
        bos_token_id=BEGIN_TOKEN,
        eos_token_id=END_TOKEN,
        pad_token_id=(END_TOKEN, 0)[which],
    )


def make_text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Both text encoders with fresh weights from torch's global generator."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    return CLIPTextModel(text_config(0)), CLIPTextModelWithProjection(text_config(1))


def make_unet() -> UNet2DConditionModel:
    """UNet with fresh weights from torch's global generator."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**UNET)  # type: ignore[no-untyped-call]


def make_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """ControlNet that starts as `unet`'s encoder half (zero convolutions are zero)."""
    from diffusers import ControlNetModel

    made: ControlNetModel = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=CONTROL_EMBEDDING_CHANNELS
    )
    return made


def make_autoencoder() -> AutoencoderKL:
    """Autoencoder, 8x smaller latents of 4 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**AUTOENCODER)  # type: ignore[no-untyped-call]


def make_scheduler() -> EulerDiscreteScheduler:
    """SDXL's own scheduler configuration."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(**SCHEDULER)  # type: ignore[no-untyped-call]
