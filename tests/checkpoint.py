"""A random-weight miniature on disk: a diffusers folder, ControlNet folders, LoRA files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from intaglio_train.lora_files import Adapter, UnetLevels, diffusers_tensors, kohya_tensors, write_adapter
from miniature import architecture as miniature

ROOT = Path(__file__).parents[1]


@dataclass
class Checkpoint:
    """What is on disk."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def controlnet(self, name: str) -> Path:
        return self.folder / name

    def lora(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def pipeline(self, *, controls: tuple[str, ...] = ()) -> Any:
        """diffusers' own pipeline from the folder."""
        extra: dict[str, Any] = {"add_watermarker": False}
        if not controls:
            pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(self.base, **extra)
        else:
            nets = [diffusers.ControlNetModel.from_pretrained(self.controlnet(name)) for name in controls]
            pipeline = diffusers.StableDiffusionXLControlNetPipeline.from_pretrained(
                self.base, controlnet=nets, **extra
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _adapter(unet: Any, texts: tuple[Any, Any], *, seed: int, with_text: bool) -> Adapter:
    torch.manual_seed(seed)
    parts: list[tuple[Any, Any, Any]] = [("unet", unet, (".to_q", ".to_k", ".to_v", ".to_out.0"))]
    if with_text:
        parts += [
            ("text_encoder", texts[0], (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")),
            ("text_encoder_2", texts[1], (".q_proj", ".k_proj", ".v_proj", ".out_proj")),
        ]
    matrices = {}
    for part, network, ends in parts:
        for name, layer in network.named_modules():
            if name.endswith(ends):
                down, up = torch.randn(4, layer.in_features), torch.randn(layer.out_features, 4)
                matrices[part, name] = (0.1 * down, 0.1 * up)
    levels = UnetLevels(unet.config.layers_per_block, frozenset({0, 1}))
    return Adapter(matrices, rank=4, alpha=2.0, levels=levels)


def make_checkpoint(folder: Path) -> Checkpoint:
    """Write a random pipeline, two ControlNets and three LoRAs into `folder`."""
    torch.manual_seed(0)
    texts, unet, vae = miniature.make_text_encoders(), miniature.make_unet(), miniature.make_autoencoder()
    tokenizers = [
        transformers.CLIPTokenizer.from_pretrained(ROOT / "miniature/model" / name)
        for name in ("tokenizer", "tokenizer_2")
    ]
    scheduler = diffusers.EulerDiscreteScheduler(
        **{key: value for key, value in miniature.SCHEDULER.items() if key not in miniature.SCHEDULER_EXTRAS}
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=texts[0],
        text_encoder_2=texts[1],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    found = Checkpoint(folder)
    pipeline.save_pretrained(found.base)
    path = found.base / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | miniature.SCHEDULER_EXTRAS))
    for seed, name in enumerate(("pose", "canny")):
        torch.manual_seed(seed)
        controlnet = miniature.make_controlnet(unet)
        for layer, values in controlnet.named_parameters():
            if "controlnet_" in layer:  # zero convolutions would make every ControlNet equal
                torch.nn.init.normal_(values, std=0.05)
        controlnet.save_pretrained(found.controlnet(name))
    style = _adapter(unet, texts, seed=1, with_text=False)
    write_adapter(found.lora("style"), diffusers_tensors(style), {})
    write_adapter(found.lora("style-kohya"), kohya_tensors(style), {})
    write_adapter(found.lora("character"), kohya_tensors(_adapter(unet, texts, seed=2, with_text=True)), {})
    return found
