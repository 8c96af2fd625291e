"""The LoRAs that are on: which set is resident in the engines, and how another takes its place.

New weights are always computed from pristine ones, in float32, and cast once, where the engines are
(`LoraMerge`) or on the host; what the set before touched and the new one does not gets its pristine bytes
back. Everything that can fail for reasons of a file is done before anything is changed. While weights are
being replaced nothing counts as resident, so that whatever breaks there can never serve a mixture: the next
request finds no digest that equals its own, and rewrites all that was ever touched.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from intaglio.engines.interface import Array, DeviceArray, Refittable
from intaglio.errors import IntaglioError, InvalidRequest, LoraRefused, SwapFailed
from intaglio.loras.files import Component, LoraFile
from intaglio.loras.layer_shapes import Part
from intaglio.loras.merge import LoraMerge, Recipe, Term, groups, largest_value
from intaglio.loras.sets import ResolvedLora, set_digest, set_text
from intaglio.loras.store import LoraStore
from intaglio.loras.targets import SwapLayers

__all__ = ["LoraSwitch", "SwapCounts"]

log = logging.getLogger(__name__)

_FILES_KEPT: Final = 8
"""LoRA files kept in memory; reading and checking one again costs more than the swap."""


@dataclass(slots=True)
class SwapCounts:
    """What the metrics report."""

    swaps: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Of all swaps."""
    last_seconds: float = 0.0
    last_writing: float = 0.0
    """Of `last_seconds`, what the engines took for the new weights; the rest was reading files, computing and
    uploading.
    """


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A set with the values that it gives its weights."""

    loras: tuple[ResolvedLora, ...]
    digest: str
    text_digest: str
    weights: Mapping[Component, Mapping[str, Recipe]]


def _rank_first(file: LoraFile, hold: Callable[[Array], Array] | None) -> LoraFile:
    """`file` with B of plain LoRAs laid out as [r, o], and both factors where they are uploaded from fastest:
    the merge takes them as they are.
    """
    plain = {place: layer.factors for place, layer in file.layers.items() if layer.factors is not None}
    if hold is None or not plain:
        return file
    flat = hold(np.concatenate([part.reshape(-1) for up, down in plain.values() for part in (up.T, down)]))
    layers, begin = dict(file.layers), 0
    for place, (up, down) in plain.items():
        middle, end = begin + up.size, begin + up.size + down.size
        parts: dict[Part, Array] = {
            "up": flat[begin:middle].reshape(up.T.shape).T,
            "down": flat[middle:end].reshape(down.shape),
        }
        layers[place] = replace(layers[place], parts=parts)
        begin = end
    return replace(file, layers=layers)


class LoraSwitch:
    """Keeps one set resident in `engines`; one thread uses it."""

    def __init__(
        self,
        engines: Mapping[Component, Refittable],
        layers: SwapLayers,
        *,
        store: LoraStore,
        threads: int,
        merge: LoraMerge | None = None,
    ) -> None:
        """`engines` hold the pristine weights now; without `merge` all is computed on the host."""
        self._engines = engines
        self._layers = layers
        self._store = store
        self._threads = threads
        self._merge = merge
        self._held = (
            {} if merge is None else {component: self._hold(component, merge) for component in engines}
        )
        """Pristine weights where they are uploaded from fastest."""
        self._largest = {} if merge is None else self._magnitudes()
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        self._touched: dict[Component, set[str]] = {component: set() for component in engines}
        """Initializers that may differ from the pristine ones."""
        self._groups: dict[Component, Mapping[str, tuple[str, ...]]] = {}
        """By initializer, those that its engine takes only together with it; asked when first needed."""
        self.resident: tuple[ResolvedLora, ...] | None = ()
        """None while weights are being replaced, and after that has failed."""
        self.digest = set_digest(())
        self.text_digest = set_digest(())
        """Of those that touch a text encoder: sets that differ in the UNet only encode prompts alike."""
        self.counts = SwapCounts()

    def warm_up(self) -> None:
        """Have everything set up that the first swap would wait for."""
        for component in self._engines:
            self._joined(component)
        if self._merge is not None:
            self._merge.warm_up()

    def ensure(self, asked: tuple[ResolvedLora, ...]) -> float:
        """Make `asked` the resident set, in order of their ids; seconds it took, 0 where it already is.

        Raises:
            InvalidRequest: `asked` can never be applied: a file does not fit this build, or a weight is too
                large. What is resident stays so.
            SwapFailed: says why, and what is resident instead.
        """
        digest = set_digest(asked)
        if self.resident is not None and digest == self.digest:
            return 0.0
        started = time.perf_counter()
        before = self.resident
        try:
            prepared = self._prepared(asked)
            writing = self._replace(prepared)
        except InvalidRequest:  # raised before anything is changed
            self.counts.failures += 1
            raise
        except (IntaglioError, MemoryError) as error:
            self.counts.failures += 1
            raise SwapFailed(
                f"loras: {set_text(asked)} could not be put on: {error}; {self._after_failure(before)}"
            ) from error
        seconds, self.counts.last_writing = time.perf_counter() - started, writing
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

    def _replace(self, prepared: _Prepared) -> float:
        """Seconds that the engines took for the new weights."""
        self.resident, seconds = None, 0.0
        for component in self._engines:
            new = prepared.weights.get(component, {})
            changed = self._touched[component] | set(new)
            if changed:
                joined = self._joined(component)
                changed = changed.union(*(joined[name] for name in changed if name in joined))
                # Whatever the set does not touch is pristine after this, also what is only written because it
                # is joined.
                restored = {
                    name: Recipe(self._pristine(component, name)) for name in sorted(changed - set(new))
                }
                self._touched[component] = changed
                seconds += self._refit(component, {**restored, **new})
        self._touched = {component: set(prepared.weights.get(component, {})) for component in self._engines}
        self.resident, self.digest, self.text_digest = prepared.loras, prepared.digest, prepared.text_digest
        return seconds

    def _joined(self, component: Component) -> Mapping[str, tuple[str, ...]]:
        if component not in self._groups:
            started = time.perf_counter()
            stored = self._layers.pristine[component].tensors
            found = self._engines[component].joined(
                {name: math.prod(tensor.shape) for name, tensor in stored.items()}
            )
            self._groups[component] = {name: tuple(sorted(group)) for group in found for name in group}
            sizes = sorted(map(len, found), reverse=True)
            log.info(
                "%s: %d groups of joined weights, largest %s (%.2f s)",
                component,
                len(found),
                sizes[:1],
                time.perf_counter() - started,
            )
        return self._groups[component]

    def _refit(self, component: Component, recipes: Mapping[str, Recipe]) -> float:
        """Give an engine the values of `recipes`, with a merge as many at once as it may stage, but what is
        joined at once; seconds of the engine's share.
        """
        engine, joined, seconds = self._engines[component], self._joined(component), 0.0
        units: dict[str, list[str]] = {}
        for name in recipes:
            units.setdefault(joined[name][0] if name in joined else name, []).append(name)
        sizes = {first: sum(recipes[name].values.nbytes for name in names) for first, names in units.items()}
        for turn in groups(sizes, sum(sizes.values()) if self._merge is None else self._merge.staging_bytes):
            some = {name: recipes[name] for first in turn for name in units[first]}
            if self._merge is None:
                values: dict[str, Array | DeviceArray] = {
                    name: recipe.values for name, recipe in some.items()
                }
            else:
                values = {**self._merge.stage(some)}
                self._merge.backend.synchronize()
            started = time.perf_counter()
            engine.refit(values)
            seconds += time.perf_counter() - started
        return seconds

    def _pristine(self, component: Component, name: str) -> Array:
        """In the engine's type."""
        if component in self._held:
            return self._held[component][name]
        return self._layers.pristine[component].read(name).astype(self._engine_dtype(component), copy=False)

    def _hold(self, component: Component, merge: LoraMerge) -> dict[str, Array]:
        file, dtype = self._layers.pristine[component], self._engine_dtype(component)
        return {name: merge.backend.hold(file.read(name).astype(dtype, copy=False)) for name in file.tensors}

    def _magnitudes(self) -> dict[tuple[Component, str], float]:
        """Largest magnitude of each pristine weight."""
        places = [(component, name) for component, weights in self._held.items() for name in weights]
        with ThreadPoolExecutor(self._threads) as pool:
            return dict(
                zip(
                    places,
                    pool.map(lambda place: largest_value(self._held[place[0]][place[1]]), places),
                    strict=True,
                )
            )

    def _after_failure(self, before: tuple[ResolvedLora, ...] | None) -> str:
        """Put `before` back where weights were already being replaced; what is resident now, in words."""
        if self.resident is None and before is not None:
            try:
                self._replace(self._prepared(before))
            except (IntaglioError, MemoryError):
                log.exception("the set before could not be put back")
        return (
            "nothing is resident until a swap succeeds"
            if self.resident is None
            else f"still resident: {set_text(self.resident)}"
        )

    def _file(self, lora: ResolvedLora) -> LoraFile:
        if lora.sha256 not in self._files:
            hold = None if self._merge is None else self._merge.backend.hold
            data = self._store.load(lora)
            try:
                file = self._layers.read(lora.id, data)
            except LoraRefused as error:
                raise InvalidRequest(
                    "loras", str(error), allowed="LoRAs that fit this build; see intaglio loras check"
                ) from error
            self._files[lora.sha256] = _rank_first(file, hold)
        self._files.move_to_end(lora.sha256)
        while len(self._files) > _FILES_KEPT:
            self._files.popitem(last=False)
        return self._files[lora.sha256]

    def _weights(self, files: list[tuple[ResolvedLora, LoraFile]]) -> dict[Component, dict[str, Recipe]]:
        """The new values of every weight that the LoRAs touch, or how the merge makes them."""
        places = sorted(
            {
                place
                for _, file in files
                for place in file.layers
                if place[1] in self._layers.targets[place[0]]
            }
        )

        def recipe(place: tuple[Component, str]) -> Recipe:
            touching = [(lora, file) for lora, file in files if place in file.layers]
            return self._merged(place, touching) or Recipe(self._value(place, touching))

        # numpy gives up the interpreter's lock in the products and sums that this is made of.
        with ThreadPoolExecutor(self._threads) as pool:
            recipes = list(pool.map(recipe, places))
        found: dict[Component, dict[str, Recipe]] = {}
        for (component, module), made in zip(places, recipes, strict=True):
            found.setdefault(component, {})[self._layers.targets[component][module].initializer] = made
        return found

    def _merged(
        self, place: tuple[Component, str], loras: list[tuple[ResolvedLora, LoraFile]]
    ) -> Recipe | None:
        """How the merge makes a weight's new values; None where it cannot: other kinds of LoRA, kernels,
        values near infinity.
        """
        component, module = place
        target = self._layers.targets[component][module]
        stored = self._layers.pristine[component].tensors[target.initializer]
        if self._merge is None or (stored.dtype != "F16" and self._engine_dtype(component) == "float16"):
            return None  # sums start from what is stored, not from its rounding
        terms = []
        for lora, file in loras:
            layer = file.layers[place]
            if layer.factors is None:
                return None
            up, down = layer.factors
            left, right = (down, up.T) if target.transposed else (up.T, down)
            terms.append(Term(left, right, lora.weight * layer.strength, layer.reach))
        largest = self._largest[component, target.initializer]
        if not self._merge.admits(stored.shape, largest=largest, terms=terms):
            return None
        return Recipe(self._pristine(component, target.initializer), tuple(terms))

    def _value(self, place: tuple[Component, str], loras: list[tuple[ResolvedLora, LoraFile]]) -> Array:
        component, module = place
        target = self._layers.targets[component][module]
        stored = self._layers.pristine[component].read(target.initializer)
        values = stored.astype(np.float32)  # a copy: pristine weights are never written
        layers = [(file.layers[place], lora.weight) for lora, file in loras]
        # Only a DoRA needs the pristine values, as [o, i], while `values` change; a copy takes time.
        pristine = values.copy() if any(layer.is_dora for layer, _ in layers) else values
        pristine = pristine.T if target.transposed else pristine
        for layer, weight in layers:
            if target.transposed and layer.factors is not None:
                up, down = layer.factors
                values += np.float32(weight * layer.strength) * (down.T @ up.T)
            elif target.transposed:
                values += layer.change(pristine, weight).T
            else:
                values += layer.change(pristine, weight)
        with np.errstate(over="ignore"):
            cast: Array = values.astype(self._engine_dtype(component))
        if not np.isfinite(cast).all():
            names = "+".join(lora.id for lora, _ in loras)
            raise InvalidRequest(
                "loras", f"{component}.{module} would not be finite with {names}", allowed="less weight"
            )
        return cast

    def _engine_dtype(self, component: Component) -> str:
        return "float16" if self._engines[component].precision == "fp16" else "float32"
