"""The LoRAs that are on: which set is resident in the engines, and how another takes its place.

New weights are always computed from pristine ones, in float32, and cast once; what the set before touched and the new one does not
gets its pristine bytes back. Everything that can fail for reasons of a file is done before anything is changed. While weights are
being replaced nothing counts as resident, so that whatever breaks there can never serve a mixture: the next request finds no
digest that equals its own, and rewrites all that was ever touched.
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from intaglio.engine import Array, Engine
from intaglio.errors import EngineMismatch, IntaglioError, LoraRefused, SwapFailed
from intaglio.lora_files import Component, LoraFile, layer_table, lora_file_from_bytes
from intaglio.manifest import BuildManifest
from intaglio.served_loras import LoraStore, ResolvedLora, set_digest, set_text
from intaglio.tensor_files import TensorFile, map_tensor_file

__all__ = ["SWAPPED", "LoraSwitch", "OtherLayers", "SwapCounts", "SwapLayers", "Target", "open_layers", "other_layers", "swap_targets"]

log = logging.getLogger(__name__)

SWAPPED: Final[tuple[Component, ...]] = ("text_encoder", "text_encoder_2", "unet")
"""Networks that a LoRA may touch."""
_FILES_KEPT: Final = 8
"""LoRA files kept in memory; reading and checking one again costs more than the swap."""


@dataclass(frozen=True, slots=True)
class Target:
    """A weight of an engine that LoRAs may change."""

    initializer: str
    module: str
    transposed: bool
    """Whether the engine has the matrix as [i, o]."""


@dataclass(frozen=True, slots=True)
class OtherLayers:
    """Layers that a LoRA may name and the engine has no replaceable weight for, by module."""

    unused: Mapping[str, tuple[int, ...]]
    """No output depends on them, such as the first text encoder's last block: changing them changes nothing."""
    frozen: Mapping[str, tuple[int, ...]]
    """This build does not swap them."""


def other_layers(pristine: TensorFile) -> OtherLayers:
    """As the build wrote them beside the pristine weights."""
    unused, frozen = (
        {module: tuple(shape) for module, shape in json.loads(pristine.metadata.get(name, "{}")).items()} for name in ("unused", "frozen")
    )
    return OtherLayers(unused, frozen)


@dataclass(slots=True)
class SwapCounts:
    """What the metrics report."""

    swaps: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Of all swaps."""
    last_seconds: float = 0.0
    last_writing: float = 0.0
    """Of `last_seconds`, what the engines took for the new weights; the rest was reading files and computing."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A set with the values that it gives its weights."""

    loras: tuple[ResolvedLora, ...]
    digest: str
    text_digest: str
    weights: Mapping[Component, Mapping[str, Array]]


def swap_targets(pristine: TensorFile) -> dict[str, Target]:
    """Module -> target, from initializer names: `<wrapper>.<module>.weight`, and `.T` behind a matrix that is transposed."""
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
        stored, others = self.pristine[component].tensors, self._others[component]
        own = {
            module: stored[target.initializer].shape[::-1] if target.transposed else stored[target.initializer].shape
            for module, target in self.targets[component].items()
        }
        return {f"{module}.weight": shape for module, shape in {**own, **others.unused, **others.frozen}.items()}

    def read(self, lora: str, data: bytes) -> LoraFile:
        """The LoRA in `data`.

        Raises:
            LoraRefused: as `lora_file_from_bytes` does, and where it changes layers that the build does not swap.
        """
        file = lora_file_from_bytes(lora, data, table=self._table)
        if frozen := [f"{component}.{module}" for component, module in file.layers if module in self._others[component].frozen]:
            raise LoraRefused(lora, f"changes {len(frozen)} layers that this build cannot swap, such as {frozen[0]}; build with swap: all")
        return file


def open_layers(manifest: BuildManifest, folder: Path) -> SwapLayers:
    """The layers of the build in `folder`; EngineMismatch where it does not swap LoRAs."""
    files: dict[Component, TensorFile] = {}
    for name in SWAPPED:
        named = manifest.networks[name].pristine
        if manifest.swap == "off" or named is None:
            raise EngineMismatch(f"{folder.name} does not swap LoRAs: set swap and registry in its configuration", command=manifest.rebuild)
        try:
            files[name] = map_tensor_file(folder / named)
        except (OSError, ValueError) as error:
            raise EngineMismatch(f"{named}: {error}", command=manifest.rebuild) from error
    return SwapLayers(files)


class LoraSwitch:
    """Keeps one set resident in `engines`; one thread uses it."""

    def __init__(self, engines: Mapping[Component, Engine], layers: SwapLayers, *, store: LoraStore, threads: int) -> None:
        """`engines` hold the pristine weights now."""
        self._engines = engines
        self._layers = layers
        self._store = store
        self._threads = threads
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        self._touched: dict[Component, set[str]] = {component: set() for component in engines}
        """Initializers that may differ from the pristine ones."""
        self.resident: tuple[ResolvedLora, ...] | None = ()
        """None while weights are being replaced, and after that has failed."""
        self.digest = set_digest(())
        self.text_digest = set_digest(())
        """Of those that touch a text encoder: sets that differ in the UNet only encode prompts alike."""
        self.counts = SwapCounts()

    def ensure(self, asked: tuple[ResolvedLora, ...]) -> float:
        """Make `asked` the resident set, in order of their ids; seconds it took, 0 where it already is.

        Raises:
            SwapFailed: says why, and what is resident instead.
        """
        digest = set_digest(asked)
        if self.resident is not None and digest == self.digest:
            return 0.0
        started = time.perf_counter()
        before = self.resident
        try:
            prepared = self._prepared(asked)
            computed = time.perf_counter()
            self._replace(prepared)
        except (IntaglioError, MemoryError) as error:
            self.counts.failures += 1
            raise SwapFailed(f"loras: {set_text(asked)} could not be put on: {error}; {self._after_failure(before)}") from error
        ended = time.perf_counter()
        seconds, self.counts.last_writing = ended - started, ended - computed
        self.counts.swaps += 1
        self.counts.seconds += seconds
        self.counts.last_seconds = seconds
        log.info("resident: %s (%.3f s)", set_text(asked), seconds)
        return seconds

    def _prepared(self, asked: tuple[ResolvedLora, ...]) -> _Prepared:
        """Everything that putting `asked` on needs; nothing is changed yet."""
        files = [(lora, self._file(lora)) for lora in sorted(asked, key=lambda lora: lora.id)]
        in_text = tuple(lora for lora, file in files if set(file.targets) != {"unet"})
        return _Prepared(asked, set_digest(asked), set_digest(in_text), self._weights(files))

    def _replace(self, prepared: _Prepared) -> None:
        self.resident = None
        for component, engine in self._engines.items():
            new = prepared.weights.get(component, {})
            dtype = self._engine_dtype(component)
            stale = self._touched[component] - set(new)
            restored = {name: self._layers.pristine[component].read(name).astype(dtype, copy=False) for name in stale}
            self._touched[component] |= set(new)
            if new or restored:
                engine.refit({**restored, **new})
        self._touched = {component: set(prepared.weights.get(component, {})) for component in self._engines}
        self.resident, self.digest, self.text_digest = prepared.loras, prepared.digest, prepared.text_digest

    def _after_failure(self, before: tuple[ResolvedLora, ...] | None) -> str:
        """Put `before` back where weights were already being replaced; what is resident now, in words."""
        if self.resident is None and before is not None:
            try:
                self._replace(self._prepared(before))
            except (IntaglioError, MemoryError):
                log.exception("the set before could not be put back")
        return "nothing is resident until a swap succeeds" if self.resident is None else f"still resident: {set_text(self.resident)}"

    def _file(self, lora: ResolvedLora) -> LoraFile:
        if lora.sha256 not in self._files:
            self._files[lora.sha256] = self._layers.read(lora.id, self._store.load(lora))
        self._files.move_to_end(lora.sha256)
        while len(self._files) > _FILES_KEPT:
            self._files.popitem(last=False)
        return self._files[lora.sha256]

    def _weights(self, files: list[tuple[ResolvedLora, LoraFile]]) -> dict[Component, dict[str, Array]]:
        """The new values of every weight that the LoRAs touch."""
        places = sorted({place for _, file in files for place in file.layers if place[1] in self._layers.targets[place[0]]})

        def value(place: tuple[Component, str]) -> Array:
            return self._value(place, [(lora, file) for lora, file in files if place in file.layers])

        # numpy gives up the interpreter's lock in the products and sums that this is made of.
        with ThreadPoolExecutor(self._threads) as pool:
            values = list(pool.map(value, places))
        found: dict[Component, dict[str, Array]] = {}
        for (component, module), values_of_place in zip(places, values, strict=True):
            found.setdefault(component, {})[self._layers.targets[component][module].initializer] = values_of_place
        return found

    def _value(self, place: tuple[Component, str], loras: list[tuple[ResolvedLora, LoraFile]]) -> Array:
        component, module = place
        target = self._layers.targets[component][module]
        stored = self._layers.pristine[component].read(target.initializer)
        values = stored.astype(np.float32)  # a copy: pristine weights are never written
        for lora, file in loras:
            layer = file.layers[place]
            if target.transposed and layer.factors is not None:
                up, down = layer.factors
                values += np.float32(lora.weight * layer.strength) * (down.T @ up.T)
            elif target.transposed:
                values = np.ascontiguousarray(layer.applied(values.T, lora.weight).T)
            else:
                values = layer.applied(values, lora.weight)
        with np.errstate(over="ignore"):
            cast: Array = values.astype(self._engine_dtype(component))
        if not np.isfinite(cast).all():
            raise LoraRefused("+".join(lora.id for lora, _ in loras), f"{component}.{module} would not be finite; ask for less weight")
        return cast

    def _engine_dtype(self, component: Component) -> str:
        return "float16" if self._engines[component].precision == "fp16" else "float32"
