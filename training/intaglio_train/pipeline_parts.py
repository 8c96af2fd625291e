"""The networks and tokenizers of a diffusers folder, in every layout that the build reads.

diffusers' pipeline would load the same files. Weights that are missing it draws at random with a warning, and
tokenizers of transformers 5 it does not load with transformers 4.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizerFast

from intaglio.single_files import TOKENIZERS
from intaglio.text_encoder_names import PUBLISHED_NAMES

__all__ = ["load_networks", "load_whole_tokenizers"]

_NETWORKS: Final[Mapping[str, Any]] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}
_NO_WEIGHT: Final = "position_ids"
"""End of the name of a tensor that old checkpoints of text encoders hold and that is computed today."""


def load_networks(folder: Path, variant: str | None) -> dict[str, Any]:
    """The networks that model_index.json names, by name, in fp32.

    Raises:
        ValueError: weights are missing, or the configuration has no place for them.
        OSError, KeyError, TypeError: what diffusers and transformers raise for foreign files.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {
        name: _load_network(name, folder / name, variant)
        for name in _NETWORKS
        if (index.get(name) or [None])[0] is not None
    }


def _load_network(name: str, folder: Path, variant: str | None) -> Any:
    # Some parts of a repository may have no files of the variant, and diffusers then takes the plain ones.
    has_variant = variant is not None and any(folder.glob(f"*.{variant}[.-]*"))
    options: dict[str, Any] = {
        "variant": variant if has_variant else None,
        "torch_dtype": torch.float32,
        "local_files_only": True,
        "output_loading_info": True,
    }
    if name.startswith("text_encoder"):
        options["key_mapping"] = PUBLISHED_NAMES
    network, report = _NETWORKS[name].from_pretrained(folder, **options)
    # The libraries draw missing weights at random and pass over the others, each with a warning.
    _refuse_any(f"{name}: the weights lack", report["missing_keys"])
    _refuse_any(f"{name}: the configuration has no place for", report["unexpected_keys"])
    return network


def _refuse_any(problem: str, names: Collection[str]) -> None:
    named = sorted(name for name in names if not name.endswith(_NO_WEIGHT))
    if named:
        more = ""
        if len(named) > 1:
            more = f" and {len(named) - 1} more"
        raise ValueError(f"{problem} {named[0]}{more}")


def load_whole_tokenizers(folder: Path) -> dict[str, Any]:
    """The tokenizers that are in tokenizer.json alone, by name. transformers 4 reads that file through this
    class only.
    """
    found = {}
    for name in TOKENIZERS:
        path = folder / name
        if (path / "tokenizer.json").is_file() and not (path / "vocab.json").is_file():
            found[name] = CLIPTokenizerFast.from_pretrained(str(path))
    return found
