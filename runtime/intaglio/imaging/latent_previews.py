"""Small pictures of latents, without a VAE: each pixel is a linear function of its four latents."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SDXL_TO_RGB", "preview_files", "rgb_from_latents"]

SDXL_TO_RGB: Final = (
    (60.0, -60.0, 25.0, -70.0),
    (60.0, -5.0, 15.0, -50.0),
    (60.0, 10.0, -5.0, -35.0),
)
"""Red, green and blue of SDXL's latents (Timothy Alexis Vass, "Explaining the SDXL latent space", 2023)."""
_OFFSETS: Final = (150.0, 140.0, 130.0)
_QUALITY: Final = 80


def rgb_from_latents(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[B, h, w, RGB] of latents [B, 4, h, w], as SDXL's VAE would decode them, roughly."""
    mixed = np.einsum("bchw,rc->bhwr", latents, np.array(SDXL_TO_RGB, np.float32), optimize=True)
    colours: NDArray[np.uint8] = np.clip(mixed + np.array(_OFFSETS, np.float32), 0, 255).astype(np.uint8)
    return colours


def preview_files(latents: NDArray[np.float32], *, longest: int) -> list[bytes]:
    """A JPEG file of each image of `latents` [B, 4, h, w]; its longer side has `longest` pixels."""
    height, width = latents.shape[2:]
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    files = []
    for pixels in rgb_from_latents(latents):
        file = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=_QUALITY)
        files.append(file.getvalue())
    return files
