"""Which weights of a build a LoRA may change, and which engine has them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import context_name
from intaglio.errors import EngineMismatch, LoraRefused
from intaglio.loras.files import Component, LoraFile, layer_table, lora_file_from_bytes
from intaglio.loras.tensor_files import TensorFile, map_tensor_file

__all__ = [
    "SWAPPED",
    "SWAPPED_NETWORKS",
    "OtherLayers",
    "SwapLayers",
    "Target",
    "network_of_weight",
    "open_layers",
    "other_layers",
    "swap_targets",
]

SWAPPED: Final[Mapping[Component, tuple[str, ...]]] = {
    "text_encoder": ("text_encoder",),
    "text_encoder_2": ("text_encoder_2",),
    "unet": ("unet", context_name("unet")),
}
"""Components that a LoRA may change, and the networks that have their weights."""
SWAPPED_NETWORKS: Final = tuple(itertools.chain.from_iterable(SWAPPED.values()))
_OF_CONTEXT: Final = (".attn2.to_k.", ".attn2.to_v.")
"""Layers whose inputs are the prompt alone."""


def network_of_weight(component: Component, initializer: str) -> str:
    """Which network of `component` has the weight that engines call `initializer`."""
    own, *context = SWAPPED[component]
    return context[0] if context and any(part in initializer for part in _OF_CONTEXT) else own


@dataclass(frozen=True, slots=True)
class Target:
    """A weight of an engine that LoRAs may change."""

    initializer: str
    module: str
    transposed: bool
    """Whether the engine stores the matrix as [i, o]."""


@dataclass(frozen=True, slots=True)
class OtherLayers:
    """Layers that a LoRA may name but that no engine can replace: module -> shape."""

    unused: Mapping[str, tuple[int, ...]]
    """No output depends on them, so a change of them changes nothing: the first text encoder's last block."""
    frozen: Mapping[str, tuple[int, ...]]
    """This build does not swap them."""


def other_layers(pristine: TensorFile) -> OtherLayers:
    """Those that the build wrote beside the pristine weights."""
    return OtherLayers(unused=_shapes_in(pristine, "unused"), frozen=_shapes_in(pristine, "frozen"))


def _shapes_in(pristine: TensorFile, name: str) -> dict[str, tuple[int, ...]]:
    shapes = json.loads(pristine.metadata.get(name, "{}"))
    return {module: tuple(shape) for module, shape in shapes.items()}


def swap_targets(pristine: TensorFile) -> dict[str, Target]:
    """Module -> target, from the names of initializers: `<wrapper>.<module>.weight`, with `.T` at the end
    where the matrix is transposed.
    """
    targets = {}
    for name in pristine.tensors:
        module = name.removesuffix(".T").removesuffix(".weight").partition(".")[2]
        targets[module] = Target(name, module, name.endswith(".T"))
    return targets


class SwapLayers:
    """Every layer of a build that a LoRA may name, and the weights behind them."""

    def __init__(self, pristine: Mapping[Component, TensorFile]) -> None:
        self.pristine = pristine
        self.targets = {component: swap_targets(file) for component, file in pristine.items()}
        self._others = {component: other_layers(file) for component, file in pristine.items()}
        self._table = layer_table({component: self._shapes(component) for component in pristine})

    def _shapes(self, component: Component) -> dict[str, tuple[int, ...]]:
        """[o, i] or [o, i, k, l] of every layer's weight."""
        stored, others = self.pristine[component].tensors, self._others[component]
        shapes: dict[str, tuple[int, ...]] = {}
        for module, target in self.targets[component].items():
            shape = stored[target.initializer].shape
            shapes[module] = shape[::-1] if target.transposed else shape
        shapes |= {**others.unused, **others.frozen}
        return {f"{module}.weight": shape for module, shape in shapes.items()}

    def read(self, lora: str, data: bytes) -> LoraFile:
        """The LoRA in `data`.

        Raises:
            LoraRefused: as `lora_file_from_bytes` does, and where the LoRA changes layers that the build does
                not swap.
        """
        file = lora_file_from_bytes(lora, data, table=self._table)
        frozen = [place for place in file.layers if place[1] in self._others[place[0]].frozen]
        if frozen:
            first = ".".join(frozen[0])
            raise LoraRefused(
                lora,
                f"changes {len(frozen)} layers that this build cannot swap, such as {first}; "
                "build with swap: all",
            )
        return file


def open_layers(manifest: BuildManifest, folder: Path) -> SwapLayers:
    """The layers of the build in `folder`.

    Raises:
        EngineMismatch: the build does not swap LoRAs, or its pristine weights are missing or damaged.
    """
    files: dict[Component, TensorFile] = {}
    for name in SWAPPED:
        named = manifest.networks[name].pristine
        if not manifest.swaps or named is None:
            raise EngineMismatch(
                f"{folder.name} does not swap LoRAs: set swap and registry in its configuration",
                command=manifest.rebuild,
            )
        try:
            files[name] = map_tensor_file(folder / named)
        except (OSError, ValueError) as error:
            raise EngineMismatch(f"{named}: {error}", command=manifest.rebuild) from error
    return SwapLayers(files)
