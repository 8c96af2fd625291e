"""How each weight of a build gets its values of a LoRA set.

New values are always computed from pristine ones, in float32, and cast once: by `LoraMerge` where the engines
are, or here on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.engines.interface import Array
from intaglio.errors import DeviceFailed, InvalidRequest, LoraRefused, Unavailable
from intaglio.loras.files import Component, LoraFile
from intaglio.loras.layer_shapes import Part
from intaglio.loras.merge import LoraMerge, Recipe, Term, largest_value
from intaglio.loras.store import LoraStore
from intaglio.loras.targets import SwapLayers
from intaglio.recently_used import RecentlyUsed

__all__ = ["KEPT_BYTES", "OpenedLora", "SetRecipes"]

KEPT_BYTES: Final = 2 << 30
"""Most bytes of LoRA files that are kept in memory, pinned where the backend pins; a LoRA of rank 32 for all
of SDXL has about 0.4 GB. To read and check a file again takes longer than a swap.
"""

OpenedLora = tuple[ResolvedLora, LoraFile]
Place = tuple[Component, str]
"""Component and module of a layer."""


class SetRecipes:
    """The recipes of any set, for engines that compute in `dtypes`; one thread uses it."""

    def __init__(
        self,
        layers: SwapLayers,
        store: LoraStore,
        *,
        dtypes: Mapping[Component, str],
        threads: int,
        merge: LoraMerge | None,
    ) -> None:
        """`dtypes` are numpy names; without `merge` the host computes all values."""
        self._layers = layers
        self._store = store
        self._dtypes = dtypes
        self._threads = threads
        self._merge = merge
        self._held: dict[Component, dict[str, Array]] = {}
        """Pristine weights in memory that is uploaded from fastest."""
        if merge is not None:
            self._held = {component: self._hold(component, merge) for component in dtypes}
        self._largest = self._magnitudes()
        self._files: RecentlyUsed[LoraFile] = RecentlyUsed(KEPT_BYTES)
        """By digest. Requests choose the files, and their sizes differ by a factor of hundreds."""

    def pristine(self, component: Component, initializer: str) -> Array:
        """The pristine values of a weight, in the engine's dtype."""
        if component in self._held:
            return self._held[component][initializer]
        values = self._layers.pristine[component].read(initializer)
        return values.astype(self._dtypes[component], copy=False)

    def _hold(self, component: Component, merge: LoraMerge) -> dict[str, Array]:
        file, dtype = self._layers.pristine[component], self._dtypes[component]
        return {name: merge.backend.hold(file.read(name).astype(dtype, copy=False)) for name in file.tensors}

    def _magnitudes(self) -> dict[Place, float]:
        """Largest magnitude of each held weight."""
        places: list[Place] = []
        values: list[Array] = []
        for component, weights in self._held.items():
            places += [(component, name) for name in weights]
            values += weights.values()
        with ThreadPoolExecutor(self._threads) as pool:
            return dict(zip(places, pool.map(largest_value, values), strict=True))

    def opened(self, lora: ResolvedLora) -> OpenedLora:
        """`lora` with its file, which is read and checked unless it is among the last ones used.

        Raises:
            LoraRefused: the published file is missing or was changed.
            InvalidRequest: the file was published as it is, but is damaged or not for this build.
            Unavailable, MemoryError: the host has no memory for it, even without the files kept so far.
        """
        known = self._files.get(lora.sha256)
        if known is not None:
            return lora, known
        try:
            return lora, self._open(lora)
        except DeviceFailed:
            raise
        except (Unavailable, MemoryError):
            if not len(self._files):
                raise
        # Outside the handler: the error's traceback refers to what was read the first time.
        self._files.clear()
        return lora, self._open(lora)

    def _open(self, lora: ResolvedLora) -> LoraFile:
        """Read `lora` and keep it."""
        file = self._read(lora)
        size = file.nbytes
        self._files.make_room(size)  # first, so that no more than the bound is ever pinned for files kept
        if self._merge is not None:
            file = _uploaded_fastest(file, self._merge.backend.hold)
        self._files.put(lora.sha256, file, size=size)
        return file

    def _read(self, lora: ResolvedLora) -> LoraFile:
        data = self._store.load(lora)
        try:
            return self._layers.read(lora.id, data)
        except LoraRefused as error:
            right = "LoRAs that fit this build; see intaglio loras check"
            raise InvalidRequest("loras", str(error), allowed=right) from error

    def of_set(self, loras: Sequence[OpenedLora]) -> dict[Component, dict[str, Recipe]]:
        """A recipe for every weight that `loras` change, by component and initializer.

        Raises:
            InvalidRequest: a weight would not be finite.
        """
        targets = self._layers.targets
        touched: set[Place] = set()
        for _, file in loras:
            touched.update(place for place in file.layers if place[1] in targets[place[0]])
        places = sorted(touched)

        def recipe(place: Place) -> Recipe:
            touching = [(lora, file) for lora, file in loras if place in file.layers]
            return self._merged(place, touching) or Recipe(self._computed(place, touching))

        # Threads help: numpy releases the interpreter's lock in the products and sums that a recipe needs.
        with ThreadPoolExecutor(self._threads) as pool:
            recipes = list(pool.map(recipe, places))
        found: dict[Component, dict[str, Recipe]] = {}
        for (component, module), made in zip(places, recipes, strict=True):
            found.setdefault(component, {})[targets[component][module].initializer] = made
        return found

    def _merged(self, place: Place, loras: Sequence[OpenedLora]) -> Recipe | None:
        """The recipe for the merge.

        None where the merge cannot compute the values: other methods than LoRA, kernels, values near the end
        of the dtype's range.
        """
        component, module = place
        target = self._layers.targets[component][module]
        stored = self._layers.pristine[component].tensors[target.initializer]
        if self._merge is None:
            return None
        if stored.dtype != "F16" and self._dtypes[component] == "float16":
            return None  # sums start from the stored values, not from their rounding
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
        return Recipe(self.pristine(component, target.initializer), tuple(terms))

    def _computed(self, place: Place, loras: Sequence[OpenedLora]) -> Array:
        """The new values of a weight, computed on the host."""
        component, module = place
        target = self._layers.targets[component][module]
        stored = self._layers.pristine[component].read(target.initializer)
        values = stored.astype(np.float32)  # a copy: pristine weights are never written
        layers = [(file.layers[place], lora.weight) for lora, file in loras]
        pristine = values
        # A copy takes time, and only a DoRA needs the pristine values while `values` change.
        if any(layer.is_dora for layer, _ in layers):
            pristine = values.copy()
        if target.transposed:
            pristine = pristine.T
        for layer, weight in layers:
            if target.transposed and layer.factors is not None:
                up, down = layer.factors
                values += np.float32(weight * layer.strength) * (down.T @ up.T)
            elif target.transposed:
                values += layer.change(pristine, weight).T
            else:
                values += layer.change(pristine, weight)
        with np.errstate(over="ignore"):
            cast: Array = values.astype(self._dtypes[component])
        if not np.isfinite(cast).all():
            ids = "+".join(lora.id for lora, _ in loras)
            problem = f"{component}.{module} would not be finite with {ids}"
            raise InvalidRequest("loras", problem, allowed="less weight")
        return cast


def _uploaded_fastest(file: LoraFile, hold: Callable[[Array], Array]) -> LoraFile:
    """`file` with the factors of plain LoRAs in memory that `hold` gives, B laid out as [r, o]: the merge
    uploads both as they are.
    """
    plain = {place: layer.factors for place, layer in file.layers.items() if layer.factors is not None}
    if not plain:
        return file
    pieces: list[Array] = []
    for up, down in plain.values():
        pieces += [up.T.reshape(-1), down.reshape(-1)]
    flat = hold(np.concatenate(pieces))
    layers = dict(file.layers)
    begin = 0
    for place, (up, down) in plain.items():
        middle = begin + up.size
        end = middle + down.size
        parts: dict[Part, Array] = {
            "up": flat[begin:middle].reshape(up.T.shape).T,
            "down": flat[middle:end].reshape(down.shape),
        }
        layers[place] = replace(layers[place], parts=parts)
        begin = end
    return replace(file, layers=layers)
