"""The trained parts in one folder, as diffusers lays out an SDXL model."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import load_file

from miniature import architecture
from miniature.training.autoencoder import load_autoencoder
from miniature.training.base import canonical, load_base
from miniature.training.loop import save_atomically
from miniature.training.settings import MODEL, Settings

__all__ = ["assemble"]


def assemble(settings: Settings) -> None:
    """Write the parts as fp16 safetensors; the folder has its tokenizers and model_index.json already."""
    model = load_base("refine", settings)
    parts: dict[str, Any] = {
        "vae": load_autoencoder("decoder", settings).cpu(),
        "text_encoder": model.text_encoder,
        "text_encoder_2": model.text_encoder_2,
        "unet": model.unet,
    }
    for name, part in parts.items():
        part.half().save_pretrained(MODEL / name, safe_serialization=True)
    for folder in ("text_encoder", "text_encoder_2"):
        weights = MODEL / folder / "model.safetensors"
        named = canonical({f"{folder}.{key}": tensor for key, tensor in load_file(weights).items()})
        save_atomically({key.removeprefix(f"{folder}."): tensor for key, tensor in named.items()}, weights)
    scheduler: Any = architecture.make_scheduler()
    scheduler.save_pretrained(MODEL / "scheduler")
    path = MODEL / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | architecture.SCHEDULER_EXTRAS
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
