"""Which files of a folder diffusers and transformers load a network from.

    STEM.safetensors             the whole network
    STEM.safetensors.index.json  the same in shards, STEM-00001-of-0000N.safetensors
    STEM.fp16.safetensors        the fp16 variant, where the plain one is missing
The stem is `model` for a text encoder and `diffusion_pytorch_model` for all other networks. A file of another
name is not loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.errors import BuildError

__all__ = ["PREFIXES", "NetworkFiles", "choose_files", "network_files", "no_weights"]

_PICKLED: Final = (".bin", ".ckpt", ".pt", ".pth")
_VARIANTS: Final = (None, "fp16")
PREFIXES: Final[Mapping[str, str]] = {
    "unet": "model.diffusion_model.",
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
    "vae": "first_stage_model.",
}
"""How the names of each component's tensors begin in a single file of Stability's layout."""


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """The names of one network's weights, the index of shards included."""

    names: tuple[str, ...]
    variant: str | None
    """What diffusers calls it: None or `fp16`."""

    @property
    def index(self) -> str | None:
        """The index of the shards; None for a whole network."""
        return next((name for name in self.names if name.endswith(".json")), None)


def stem_of(component: str) -> str:
    """How the weights of `component` are named."""
    return "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"


def choose_files(component: str, names: Collection[str]) -> NetworkFiles | None:
    """The weights of `component` among the `names` of its folder; None where diffusers would find none."""
    stem = stem_of(component)
    for variant in _VARIANTS:
        suffix = "" if variant is None else f".{variant}"
        whole = f"{stem}{suffix}.safetensors"
        index = f"{stem}.safetensors.index{suffix}.json"
        choices = []
        if whole in names:
            choices.append(NetworkFiles((whole,), variant))
        if index in names:
            choices.append(NetworkFiles((index, *_shards(stem, suffix, names)), variant))
        if choices:
            # Where both are there, transformers takes the whole network and diffusers the shards.
            return choices[0] if stem == "model" else choices[-1]
    return None


def _shards(stem: str, suffix: str, names: Collection[str]) -> list[str]:
    """Shards by their names. Before and after the number are both in use for the variant."""
    number = r"-\d+-of-\d+"
    places = {rf"{number}{re.escape(suffix)}", rf"{re.escape(suffix)}{number}"}
    pattern = re.compile(rf"{re.escape(stem)}(?:{'|'.join(sorted(places))})\.safetensors")
    return sorted(name for name in names if pattern.fullmatch(name))


def network_files(folder: Path, component: str) -> NetworkFiles:
    """The weights of `component` in `folder`, all of which are there.

    Raises:
        BuildError: diffusers would find none, or a shard is missing; the message says what is there instead.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    found = choose_files(component, names)
    if found is None:
        raise BuildError(f"{folder}: {no_weights(component, names)}")
    if found.index is None:
        return found
    shards = _indexed(folder / found.index)
    missing = sorted(shards - names)
    if missing:
        raise BuildError(
            f"{folder}: {missing[0]} is missing, which {found.index} names; fetch the whole network again"
        )
    return NetworkFiles((found.index, *sorted(shards)), found.variant)


def _indexed(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path}: no index of shards ({error!r}); fetch it again") from error


def no_weights(component: str, names: Collection[str]) -> str:
    """Why `component` cannot be loaded from a folder of `names`, and what would be right."""
    wanted = f"{stem_of(component)}.safetensors"
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        return (
            f"diffusers loads {wanted}, but there is {others[0]}; rename it if it is the whole network, "
            "or name a source that has that file"
        )
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    hint = f"; {pickled[0]} is pickled and never read: convert it to .safetensors" if pickled else ""
    return f"no .safetensors weights{hint}"
