"""What a LoRA's file says of itself: ModelSpec's keys, and kohya's, which A1111, ComfyUI and civitai show.

ModelSpec: https://github.com/Stability-AI/ModelSpec, version 1.0.1. kohya's keys: sd-scripts'
`train_network.py`. Nothing here depends on when or where the run was made, but `modelspec.date`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from intaglio_train.base_model import BaseModel
from intaglio_train.config import LoraConfig
from intaglio_train.data import Dataset, buckets_of

__all__ = ["Trained", "lora_metadata", "name_of_base"]

SDXL: Final = "stable-diffusion-xl-v1-base"
KOHYAS_SDXL: Final = "sdxl_base_v1-0"
SDXL_UNET: Final[Mapping[str, Any]] = {
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "in_channels": 4,
}
"""Keys of a UNet's configuration by which SDXL's own size is known."""
MOST_TAGS: Final = 1000
"""Tags of a folder that are counted: the most frequent ones. All words of long captions would make a file's
header larger than its weights.
"""
_DIFFUSERS: Final = "diffusers"
_STABILITY: Final = "https://github.com/Stability-AI/generative-models"
_PREDICTIONS: Final[Mapping[str, str]] = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class Trained:
    """What a file describes."""

    config: LoraConfig
    base: BaseModel
    prediction: str
    """What the model predicts, in diffusers' words."""
    dataset: Dataset
    prior: Dataset | None
    steps: int
    processes: int
    date: str
    """ISO 8601."""


def name_of_base(model: str, configured: str | None) -> str:
    """The base's name: the configured one, a hub id, or the name of a file or folder."""
    if configured is not None:
        return configured
    path = Path(model)
    if not path.exists():
        return model
    return path.stem if path.is_file() else path.resolve().name


def lora_metadata(trained: Trained, *, kohya: bool) -> dict[str, str]:
    """Metadata of the file in kohya's layout, or in diffusers'. Hashes come with the tensors."""
    found = _modelspec(trained, kohya=kohya) | _kohyas(trained, kohya=kohya)
    if trained.config.method:
        found["intaglio.method"] = trained.config.method
    return found


def _modelspec(trained: Trained, *, kohya: bool) -> dict[str, str]:
    config = trained.config
    base = name_of_base(config.model, config.base_name)
    found = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{SDXL if _is_sdxl(trained.base) else base}/lora",
        "implementation": _STABILITY if kohya else _DIFFUSERS,
        "title": config.name,
        "resolution": f"{config.size[0]}x{config.size[1]}",
        "prediction_type": _PREDICTIONS[trained.prediction],
        "date": trained.date,
    }
    if config.trigger_words:
        found["trigger_phrase"] = ", ".join(config.trigger_words)
    if config.usage_hint:
        found["usage_hint"] = config.usage_hint
    return {f"modelspec.{key}": value for key, value in found.items()}


def _kohyas(trained: Trained, *, kohya: bool) -> dict[str, str]:
    config = trained.config
    base = name_of_base(config.model, config.base_name)
    # A file in diffusers' layout has the scale in its matrices, so that its alpha is its rank.
    alpha = config.scale_alpha if kohya else float(config.rank)
    text_rate = config.text_learning_rate or config.learning_rate
    found: dict[str, Any] = {
        "base_model_version": KOHYAS_SDXL if _is_sdxl(trained.base) else base,
        "sd_model_name": base,
        "v2": False,
        "output_name": config.name,
        "network_module": "networks.lora",
        "network_dim": config.rank,
        "network_alpha": alpha,
        "network_dropout": config.dropout,
        "steps": trained.steps,
        "max_train_steps": config.steps,
        "learning_rate": config.learning_rate,
        "unet_lr": config.learning_rate,
        "text_encoder_lr": text_rate if config.train_text_encoders else None,
        "lr_scheduler": config.schedule,
        "lr_warmup_steps": config.warmup_steps,
        "optimizer": f"torch.optim.AdamW(weight_decay={config.weight_decay})",
        "seed": config.seed,
        "mixed_precision": config.mixed_precision,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "max_grad_norm": config.max_gradient_norm,
        "min_snr_gamma": config.min_snr_gamma,
        "noise_offset": config.noise_offset or None,
        "caption_dropout_rate": config.caption_dropout,
        "batch_size_per_device": config.batch_size,
        "total_batch_size": config.batch_size * trained.processes * config.gradient_accumulation,
        "cache_latents": config.cache_latents,
        "prior_loss_weight": config.prior.weight if config.prior else None,
        "training_comment": f"intaglio_train (diffusers {version('diffusers')}, peft {version('peft')})",
    } | _data(trained)
    if "conv" in config.targets:
        found["network_args"] = json.dumps({"conv_dim": str(config.rank), "conv_alpha": str(alpha)})
    return {f"ss_{key}": str(value) for key, value in found.items()}


def _data(trained: Trained) -> dict[str, Any]:
    config = trained.config
    dataset = trained.dataset
    smallest, largest = config.bucket_range
    found = {
        "resolution": config.size,
        "num_train_images": sum(dataset.repeats),
        "num_reg_images": sum(trained.prior.repeats) if trained.prior else 0,
        "enable_bucket": config.fit == "buckets",
        "bucket_no_upscale": config.bucket_no_upscale,
        "min_bucket_reso": smallest,
        "max_bucket_reso": largest,
        "bucket_info": json.dumps(_bucket_info(dataset)),
        "dataset_dirs": json.dumps(_folders(dataset)),
        "tag_frequency": json.dumps(_tag_frequency(dataset)),
    }
    if trained.prior:
        found["reg_dataset_dirs"] = json.dumps(_folders(trained.prior))
    return found


def _bucket_info(dataset: Dataset) -> dict[str, Any]:
    buckets = {}
    for number, (size, samples) in enumerate(buckets_of(dataset).items()):
        count = sum(dataset.repeats[sample] for sample in samples)
        buckets[str(number)] = {"resolution": size, "count": count}
    return {"buckets": buckets}


def _folders(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Repeats and images of every folder, by name."""
    found: dict[str, dict[str, int]] = {}
    for sample, repeats in enumerate(dataset.repeats):
        folder = found.setdefault(dataset.folder(sample), {"n_repeats": repeats, "img_count": 0})
        folder["img_count"] += 1
    return found


def _tag_frequency(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How often each tag stands in the captions of each folder (kohya's `set_tag_frequency`)."""
    found: dict[str, Counter[str]] = {}
    for sample, captions in enumerate(dataset.captions):
        tags = found.setdefault(dataset.folder(sample), Counter())
        for caption in captions:
            tags.update(tag.strip().lower() for tag in caption.split(",") if tag.strip())
    return {folder: dict(tags.most_common(MOST_TAGS)) for folder, tags in found.items()}


def _is_sdxl(base: BaseModel) -> bool:
    config = base.unet.config
    return all(_plain(config[key]) == value for key, value in SDXL_UNET.items())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
