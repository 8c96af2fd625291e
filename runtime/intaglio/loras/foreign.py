"""What a LoRA file is for, where it is not for this base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["family_by_keys", "family_by_metadata", "family_by_width"]

_BY_KEY: Final = (
    (re.compile(r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]"), "a Flux LoRA"),
    (re.compile(r"joint_blocks|attn\.add_[qkv]_proj|attn_add_[qkv]_proj"), "a Stable Diffusion 3 LoRA"),
    (re.compile(r"^lora_te_text_model"), "a Stable Diffusion 1.5 or 2 LoRA (one text encoder)"),
)
_UNETS_OF_STABILITY: Final = re.compile(
    r"^(model\.)?diffusion_model\.(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\."
)
_TRANSFORMERS: Final = re.compile(
    r"^(transformer|diffusion_model|lora_transformer|model\.diffusion_model)[._]"
)
_CONTEXT_WIDTHS: Final[Mapping[int, str]] = {
    768: "Stable Diffusion 1.5",
    1024: "Stable Diffusion 2",
    2048: "full-size SDXL",
}
"""By the width of the text that cross-attention reads."""
_ARCHITECTURES: Final = (
    ("flux", "a Flux LoRA"),
    ("stable-diffusion-v1", "a Stable Diffusion 1.5 LoRA"),
    ("sd_v1", "a Stable Diffusion 1.5 LoRA"),
    ("stable-diffusion-v2", "a Stable Diffusion 2 LoRA"),
    ("sd_v2", "a Stable Diffusion 2 LoRA"),
    ("stable-diffusion-3", "a Stable Diffusion 3 LoRA"),
    ("sd3", "a Stable Diffusion 3 LoRA"),
)
"""Starts of kohya's `ss_base_model_version` and of `modelspec.architecture`."""


def family_by_keys(keys: Iterable[str]) -> str | None:
    """What names of tensors tell; None where nothing is known."""
    keys = tuple(keys)
    for pattern, family in _BY_KEY:
        if any(pattern.search(key) for key in keys):
            return family
    if any(_TRANSFORMERS.search(key) and not _UNETS_OF_STABILITY.search(key) for key in keys):
        return "a LoRA of a diffusion transformer"
    return None


def family_by_metadata(metadata: Mapping[str, str]) -> str | None:
    """What the trainer wrote; None where it wrote nothing, or SDXL."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        said = metadata.get(key, "").lower()
        for start, family in _ARCHITECTURES:
            if said.startswith(start):
                return family
    return None


def family_by_width(shapes: Mapping[str, tuple[int, ...]], *, own: int | None) -> str | None:
    """What the width of the text tells that the LoRA's cross-attention reads; None where it is this base's,
    `own`.
    """
    width = next((shape[1] for key, shape in shapes.items() if _reads_text(key, shape)), None)
    if width is None or width == own:
        return None
    family = _CONTEXT_WIDTHS.get(width, "another model")
    return f"for {family} (its cross-attention reads text of width {width}, this base's of {own})"


def _reads_text(key: str, shape: tuple[int, ...]) -> bool:
    before, found, after = key.rpartition("to_k")
    return bool(found) and "attn2" in before and ("down" in after or "lora_A" in after) and len(shape) == 2
