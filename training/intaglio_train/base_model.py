"""The frozen SDXL that is trained upon: loaded through diffusers' public classes, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from intaglio_train.errors import ConfigError
from intaglio_train.pipeline_parts import load_networks, load_whole_tokenizers
from intaglio_train.single_file import load_single_file

__all__ = ["BaseModel", "ModelSource", "load_base_model", "training_dtype"]


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from."""

    name: str
    """A diffusers folder, a hub id or a single file."""
    variant: str | None = None
    """Which weights of a folder: "fp16" for those named so."""
    configurations: Path | None = None
    """A diffusers folder with what a single file leaves out."""


@dataclass(frozen=True)
class BaseModel:
    """SDXL's parts, UNet and text encoders in `dtype`, the autoencoder in fp32 (SDXL's own overflows in
    fp16).
    """

    unet: Any
    vae: Any
    text_encoders: tuple[Any, Any]
    tokenizers: tuple[Any, Any]
    scheduler: Any
    zero_empty_prompt: bool
    """Whether the pipeline's own embedding of no prompt is zeros (`force_zeros_for_empty_prompt`) rather than
    that of "".
    """
    name: str
    device: torch.device
    dtype: torch.dtype

    def pipeline(self) -> Any:
        """The diffusers pipeline of these parts (no copies)."""
        return StableDiffusionXLPipeline(  # type: ignore[no-untyped-call]
            vae=self.vae,
            text_encoder=self.text_encoders[0],
            text_encoder_2=self.text_encoders[1],
            tokenizer=self.tokenizers[0],
            tokenizer_2=self.tokenizers[1],
            unet=self.unet,
            scheduler=self.scheduler,
            force_zeros_for_empty_prompt=self.zero_empty_prompt,
            add_watermarker=False,
        )


def training_dtype(mixed_precision: str) -> torch.dtype:
    """Precision of frozen weights; trained ones are always fp32."""
    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]


def load_base_model(source: ModelSource, *, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Load a diffusers folder, a hub id or a single file, frozen. Raises `ConfigError`."""
    name = source.name
    pipeline = _load_pipeline(source)
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.vae)
    if any(part is None for part in parts) or pipeline.unet.config.addition_embed_type != "text_time":
        raise ConfigError(
            f"model {name}: is not SDXL; it needs two text encoders, a UNet with text_time embedding"
            " and an autoencoder"
        )
    for part in parts:
        part.requires_grad_(False).eval()
        if part is not pipeline.vae:
            part.to(device=device, dtype=dtype)
    pipeline.vae.to(device=device, dtype=torch.float32)
    return BaseModel(
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoders=(pipeline.text_encoder, pipeline.text_encoder_2),
        tokenizers=(pipeline.tokenizer, pipeline.tokenizer_2),
        scheduler=pipeline.scheduler,
        zero_empty_prompt=bool(pipeline.config.force_zeros_for_empty_prompt),
        name=name,
        device=device,
        dtype=dtype,
    )


def _load_pipeline(source: ModelSource) -> Any:
    name = source.name
    path = Path(name)
    right = "give a diffusers SDXL folder, a .safetensors file or a hub id"
    if path.is_dir() and not (path / "model_index.json").exists():
        raise ConfigError(f"model {name}: has no model_index.json; {right}")
    is_path = path.is_absolute() or name.startswith(".") or path.suffix in (".safetensors", ".ckpt")
    if (is_path or name.count("/") != 1) and not path.exists():
        raise ConfigError(f"model {name}: no such file or folder; {right}")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ConfigError(
                f"model {name}: pickled weights are never read, since they can run code;"
                " convert the file to .safetensors"
            )
        return load_single_file(path, source.configurations)
    if source.configurations is not None:
        raise ConfigError(f"configurations are for a model in a single file; {name} has its own")
    try:
        return _load_folder(source)
    # What diffusers raises for missing and foreign files.
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = "is no folder here and the hub does not give it"
        if path.exists():
            found = "cannot be loaded as SDXL"
        raise ConfigError(f"model {name}: {found}: {str(error)[:200]}") from error


def _load_folder(source: ModelSource) -> Any:
    folder = Path(source.name)
    if not folder.is_dir():
        folder = Path(StableDiffusionXLPipeline.download(source.name, variant=source.variant))
    networks = load_networks(folder, source.variant)
    tokenizers = load_whole_tokenizers(folder)
    absent = dict.fromkeys(tokenizers)
    pipeline = StableDiffusionXLPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        str(folder), variant=source.variant, add_watermarker=False, **networks, **absent
    )
    pipeline.register_modules(**tokenizers)
    return pipeline
