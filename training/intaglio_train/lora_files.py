"""LoRA files: the diffusers and the kohya layout of one adapter.

`r` rank. down [r,in(,k,k)], up [out,r(,1,1)]; a layer's change is (alpha / r) up·down. diffusers files carry
no alpha that every reader honours, so there alpha / r is multiplied into `up`; kohya files have `.alpha`
keys.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from intaglio.text_encoder_names import published_name

__all__ = [
    "Adapter",
    "UnetLevels",
    "diffusers_tensors",
    "kohya_module_name",
    "kohya_tensors",
    "write_adapter",
]

Part = Literal["unet", "text_encoder", "text_encoder_2"]
KOHYA_PREFIX: Mapping[str, str] = {
    "unet": "lora_unet",
    "text_encoder": "lora_te1",
    "text_encoder_2": "lora_te2",
}


@dataclass(frozen=True)
class UnetLevels:
    """What the numbering of blocks in kohya's names depends on."""

    layers_per_block: int
    attention_up: frozenset[int]
    """Output levels with attention."""


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: (down, up) of each (part, module name in diffusers' model)."""

    matrices: dict[tuple[Part, str], tuple[torch.Tensor, torch.Tensor]]
    rank: int
    alpha: float
    levels: UnetLevels

    def named(self) -> Iterator[tuple[Part, str, torch.Tensor, torch.Tensor]]:
        for (part, module), (down, up) in self.matrices.items():
            yield part, published_name(module) if part != "unet" else module, down, up


def diffusers_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """fp16 tensors under diffusers' names, scale included."""
    scale = adapter.alpha / adapter.rank
    tensors = {}
    for part, module, down, up in adapter.named():
        tensors[f"{part}.{module}.lora_A.weight"] = _half(down)
        tensors[f"{part}.{module}.lora_B.weight"] = _half(up * scale)
    return tensors


def kohya_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """fp16 tensors under the names that kohya's trainer writes and ComfyUI reads, with `.alpha`."""
    tensors = {}
    for part, module, down, up in adapter.named():
        theirs = kohya_module_name(module, adapter.levels) if part == "unet" else module
        name = f"{KOHYA_PREFIX[part]}_{theirs.replace('.', '_')}"
        tensors[f"{name}.lora_down.weight"] = _half(down)
        tensors[f"{name}.lora_up.weight"] = _half(up)
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha, dtype=torch.float32)
    return tensors


_RESNET_LAYERS = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def kohya_module_name(module: str, levels: UnetLevels) -> str:
    """Name of a UNet module in Stability's own code (sgm), which kohya's files use.

    sgm numbers blocks through all levels: input_blocks.0 is conv_in, then each level has so many layers
    (resnet 0, attention 1) and a downsampler; output levels have one layer more, the last of which carries
    the upsampler.
    """
    layers = levels.layers_per_block
    found = re.fullmatch(
        r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", module
    )
    if found:
        side, _, kind, _, rest = found.groups()
        level = int(found[2])
        index = int(found[4])
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
        if kind == "upsamplers":
            position = 2 if level in levels.attention_up else 1
            return f"output_blocks.{level * (layers + 1) + layers}.{position}.conv"
        block = level * (layers + 1) + index
        stem = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
        return f"{stem}.{_within(kind, rest)}"
    found = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)
    if found:
        kind, _, rest = found.groups()
        index = int(found[2])
        place = 2 * index if kind == "resnets" else 2 * index + 1
        return f"middle_block.{place}.{_within(kind, rest).split('.', 1)[1]}"
    raise ValueError(f"{module}: has no name in the kohya layout")


def _within(kind: str, rest: str) -> str:
    return f"1.{rest}" if kind == "attentions" else f"0.{_RESNET_LAYERS[rest]}"


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float16).contiguous()


def write_adapter(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    """Write under a temporary name, then rename. Equal content gives equal bytes, so that a build keyed by
    them is not redone. Hashes of the tensors are added to the metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(_serialised(tensors, metadata | _hashes(tensors, metadata)))
    partial.replace(path)
    return path


def _hashes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """ModelSpec's hash of everything after the header, and those that A1111 looks for.

    kohya computes the latter (`precalculate_safetensors_hashes`) on a file that has only the keys that nobody
    edits, those that begin with `ss_`. The older one is of 64 KiB from the first MiB on.
    """
    data = _serialised(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    (length,) = struct.unpack("<Q", data[:8])
    content = hashlib.sha256(memoryview(data)[8 + length :]).hexdigest()
    return {
        "modelspec.hash_sha256": f"0x{content}",
        "sshs_model_hash": content,
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }


def _serialised(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    return _with_sorted_header(save(tensors, metadata={"format": "pt", **metadata}))


def _with_sorted_header(data: bytes) -> bytes:
    """safetensors writes its metadata in a random order; offsets count from the header's end, so the header
    may be replaced.
    """
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
