"""SDXL with one layer where it has many, and random weights: the quickest network of each kind."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

REPOSITORY = Path(__file__).parents[1]
CONTROLS = {"pose": "pose", "edges": "canny"}


def _text_config(width: int, *, pad: int, act: str) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=pad,
    )


def make_union(controlnet: Any, *, types: int = 6, std: float = 0.6) -> Any:
    """A ControlNet-Union that begins as `controlnet`.

    What only a union has is drawn with `std` where diffusers begins with zeros, so every part has an effect.
    """
    known = inspect.signature(diffusers.ControlNetUnionModel.__init__).parameters
    config = {key: value for key, value in controlnet.config.items() if key in known}
    width = controlnet.config.block_out_channels[0]
    config |= {"num_control_type": types, "num_trans_channel": width, "num_proj_channel": width}
    torch.manual_seed(2)
    union: Any = diffusers.ControlNetUnionModel.from_config(config)
    union.load_state_dict(controlnet.state_dict(), strict=False)
    for parameter in union.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=std)
    return union.eval().requires_grad_(False)


def make_modules() -> dict[str, Any]:
    """Every component by its name; `vae` is the autoencoder whole."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        norm_num_groups=4,
    )
    modules: dict[str, Any] = {
        "text_encoder": transformers.CLIPTextModel(_text_config(8, pad=49407, act="quick_gelu")),
        "text_encoder_2": transformers.CLIPTextModelWithProjection(_text_config(16, pad=0, act="gelu")),
        "unet": unet,
        "vae": diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
            force_upcast=False,
            scaling_factor=0.13025,
        ),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(REPOSITORY / "miniature/model/tokenizer"),
        "tokenizer_2": transformers.CLIPTokenizer.from_pretrained(REPOSITORY / "miniature/model/tokenizer_2"),
    }
    for control in CONTROLS:
        net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
        for parameter in net.parameters():  # its zero convolutions would hide mistakes
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
        modules[f"controlnet.{control}"] = net
    for module in modules.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return modules
