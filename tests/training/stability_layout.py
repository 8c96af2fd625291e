"""A diffusers SDXL pipeline's weights under the names of Stability's own code, as single files carry them.

Written from the layouts themselves: sgm's UNet (openaimodel.py) and autoencoder, open_clip's transformer.
"""

from __future__ import annotations

import re
from typing import Any

import torch

__all__ = ["stability_tensors"]

Tensors = dict[str, torch.Tensor]

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def stability_tensors(pipeline: Any) -> Tensors:
    """Every weight of the pipeline's two text encoders, UNet and autoencoder."""
    unet = pipeline.unet
    cross = [index for index, kind in enumerate(unet.config.up_block_types) if "CrossAttn" in kind]
    tensors: Tensors = {}
    for name, tensor in unet.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        theirs = _unet_name(module, unet.config.layers_per_block, cross)
        tensors[f"model.diffusion_model.{theirs}.{leaf}"] = tensor
    levels = len(pipeline.vae.config.block_out_channels)
    for name, tensor in pipeline.vae.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        theirs = _vae_name(module, levels)
        is_projection = ".attn_1." in theirs and not theirs.endswith("norm") and tensor.ndim == 2
        tensors[f"first_stage_model.{theirs}.{leaf}"] = tensor[..., None, None] if is_projection else tensor
    for name, tensor in pipeline.text_encoder.state_dict().items():
        tensors[f"conditioner.embedders.0.transformer.{name}"] = tensor
    for name, tensor in _open_clip(pipeline.text_encoder_2.state_dict()).items():
        tensors[f"conditioner.embedders.1.model.{name}"] = tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _unet_name(module: str, layers: int, cross: list[int]) -> str:
    if module in UNET_ENDS:
        return UNET_ENDS[module]
    side, *parts = module.split(".")
    level = 0 if side == "mid_block" else int(parts.pop(0))
    kind, index = parts[0], int(parts[1])
    rest = ".".join(parts[2:])
    if kind == "resnets":
        rest = UNET_RESNET[rest]
    if side == "mid_block":
        return f"middle_block.{2 * index if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if level in cross else 1}.conv"
    place = 0 if kind == "resnets" else 1
    if side == "down_blocks":
        return f"input_blocks.{level * (layers + 1) + index + 1}.{place}.{rest}"
    return f"output_blocks.{level * (layers + 1) + index}.{place}.{rest}"


def _vae_name(module: str, levels: int) -> str:
    name = module.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.match(r"decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)", name)
    if up:
        kind = "block" if up[2] == "resnets" else "upsample"
        name = f"decoder.up.{levels - 1 - int(up[1])}.{kind}{name[up.end() :]}"
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    attention = re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.+)", name)
    return f"{attention[1]}.mid.attn_1.{VAE_ATTENTION[attention[2]]}" if attention else name


def _open_clip(theirs: Tensors) -> Tensors:
    tensors: Tensors = {}
    for name, tensor in theirs.items():
        found = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if found and found[2].startswith("self_attn") and "out_proj" not in found[2]:
            continue
        if found:
            tensors[f"transformer.resblocks.{found[1]}.{OPEN_CLIP[found[2]]}.{found[3]}"] = tensor
    for layer in range(sum(name.endswith("layer_norm1.weight") for name in theirs)):
        for leaf in ("weight", "bias"):
            stem = f"text_model.encoder.layers.{layer}.self_attn"
            joined = torch.cat([theirs[f"{stem}.{part}_proj.{leaf}"] for part in "qkv"])
            tensors[f"transformer.resblocks.{layer}.attn.in_proj_{leaf}"] = joined
    embeddings = "text_model.embeddings"
    return tensors | {
        "token_embedding.weight": theirs[f"{embeddings}.token_embedding.weight"],
        "positional_embedding": theirs[f"{embeddings}.position_embedding.weight"],
        "ln_final.weight": theirs["text_model.final_layer_norm.weight"],
        "ln_final.bias": theirs["text_model.final_layer_norm.bias"],
        "text_projection": theirs["text_projection.weight"].T,
    }
