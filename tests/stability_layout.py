"""diffusers' SDXL networks written as one file in Stability's layout, without diffusers' own converters.

Names are those of Stability AI's generative-models (`openaimodel.py`, `model.py` of the autoencoder) and of
OpenCLIP's text transformer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET, TEXT, TEXT_2, VAE = (
    "model.diffusion_model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "first_stage_model.",
)


def write_stability_file(path: Path, networks: Mapping[str, Any]) -> None:
    """`networks` by component; a component that is left out is missing from the file."""
    save_file(stability_tensors(networks), path)


def stability_tensors(networks: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight of `networks` under Stability's names."""
    tensors: dict[str, Tensor] = {}
    if "unet" in networks:
        unet = networks["unet"]
        names = UnetNames(unet)
        tensors |= {UNET + names.of(name): values for name, values in unet.state_dict().items()}
    if "text_encoder" in networks:
        tensors |= {TEXT + name: values for name, values in networks["text_encoder"].state_dict().items()}
    if "text_encoder_2" in networks:
        tensors |= open_clip(networks["text_encoder_2"].state_dict())
    if "vae" in networks:
        tensors |= autoencoder(networks["vae"])
    return {name: values.clone().contiguous() for name, values in tensors.items()}


class UnetNames:
    """`input_blocks` count conv_in, then every layer and every downsampler of the down blocks."""

    _OUTSIDE: ClassVar = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    _RESNET: ClassVar = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }

    def __init__(self, unet: Any) -> None:
        self._places: dict[str, str] = {}
        count = 1
        for index, block in enumerate(unet.down_blocks):
            attends = hasattr(block, "attentions")
            for layer in range(len(block.resnets)):
                self._layer(f"down_blocks.{index}", layer, f"input_blocks.{count}", attends=attends)
                count += 1
            if block.downsamplers is not None:
                self._places[f"down_blocks.{index}.downsamplers.0.conv"] = f"input_blocks.{count}.0.op"
                count += 1
        self._middle(unet.mid_block)
        count = 0
        for index, block in enumerate(unet.up_blocks):
            attends = hasattr(block, "attentions")
            for layer in range(len(block.resnets)):
                self._layer(f"up_blocks.{index}", layer, f"output_blocks.{count}", attends=attends)
                count += 1
            if block.upsamplers is not None:
                last = f"output_blocks.{count - 1}.{2 if attends else 1}"
                self._places[f"up_blocks.{index}.upsamplers.0.conv"] = f"{last}.conv"

    def _layer(self, block: str, layer: int, place: str, *, attends: bool) -> None:
        self._places[f"{block}.resnets.{layer}"] = f"{place}.0"
        if attends:
            self._places[f"{block}.attentions.{layer}"] = f"{place}.1"

    def _middle(self, block: Any) -> None:
        self._places["mid_block.resnets.0"] = "middle_block.0"
        if len(block.resnets) > 1:
            self._places["mid_block.attentions.0"] = "middle_block.1"
            self._places["mid_block.resnets.1"] = "middle_block.2"

    def of(self, name: str) -> str:
        """Stability's name of the weight `name`."""
        layer, _, kind = name.rpartition(".")
        if layer in self._OUTSIDE:
            return f"{self._OUTSIDE[layer]}.{kind}"
        for place, theirs in self._places.items():
            if layer == place:
                return f"{theirs}.{kind}"
            if layer.startswith(f"{place}."):
                inner = layer.removeprefix(f"{place}.")
                return f"{theirs}.{self._RESNET.get(inner, inner)}.{kind}"
        raise KeyError(name)


def controlnet_tensors(controlnet: Any) -> dict[str, Tensor]:
    """Every weight of a ControlNet of diffusers under the names of ControlNet's own code (`cldm.py`)."""
    names = ControlNetNames(controlnet)
    return {names.of(name): values.clone().contiguous() for name, values in controlnet.state_dict().items()}


class ControlNetNames(UnetNames):
    """As a UNet's first half; `input_hint_block` has an activation after every convolution but the last."""

    def __init__(self, controlnet: Any) -> None:
        half = {"down_blocks": controlnet.down_blocks, "mid_block": controlnet.mid_block, "up_blocks": ()}
        super().__init__(SimpleNamespace(**half))
        for index in range(len(controlnet.controlnet_down_blocks)):
            self._places[f"controlnet_down_blocks.{index}"] = f"zero_convs.{index}.0"
        self._places["controlnet_mid_block"] = "middle_block_out.0"
        hint = "controlnet_cond_embedding"
        count = len(controlnet.controlnet_cond_embedding.blocks)
        self._places[f"{hint}.conv_in"] = "input_hint_block.0"
        for index in range(count):
            self._places[f"{hint}.blocks.{index}"] = f"input_hint_block.{2 * index + 2}"
        self._places[f"{hint}.conv_out"] = f"input_hint_block.{2 * count + 2}"


def open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP joins queries, keys and values, and transposes the projection."""
    found = {
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "ln_final.weight": state["text_model.final_layer_norm.weight"],
        "ln_final.bias": state["text_model.final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
    }
    inner = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for layer in range(_count(state, r"text_model\.encoder\.layers\.(\d+)\.")):
        ours, theirs = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for name, other in inner.items():
                found[f"{theirs}.{other}.{kind}"] = state[f"{ours}.{name}.{kind}"]
            joined = [state[f"{ours}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            found[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(joined)
    return {TEXT_2 + name: values for name, values in found.items()}


def autoencoder(vae: Any) -> dict[str, Tensor]:
    """The decoder counts its levels from the picture's side; attention has 1x1 convolutions."""
    found = {}
    for name, values in vae.state_dict().items():
        theirs = _vae_name(name, levels=len(vae.decoder.up_blocks))
        is_projection = ".attentions.0.to_" in name and name.endswith(".weight")
        found[VAE + theirs] = values[:, :, None, None] if is_projection else values
    return found


def _vae_name(name: str, *, levels: int) -> str:
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample", name)
    level = re.match(r"decoder\.up_blocks\.(\d+)", name)
    if level is not None:
        name = name.replace(level[0], f"decoder.up.{levels - 1 - int(level[1])}")
        name = re.sub(r"\.resnets\.(\d+)", r".block.\1", name).replace(".upsamplers.0", ".upsample")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for ours, theirs in attention.items():
        name = name.replace(f"mid_block.attentions.0.{ours}", f"mid.attn_1.{theirs}")
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _count(names: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
