"""Which LoRA set is resident in the engines, and how another set takes its place.

Files are read and checked before any weight changes. A weight that the set before changed and the new set
does not gets its pristine bytes back. While weights are being replaced, nothing counts as resident. So a swap
that breaks halfway cannot serve a mixture: the next request finds no digest that equals its own, and every
weight that was ever changed is written again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.tensors import compute_dtype
from intaglio.engines.interface import Array, DeviceArray, Refittable
from intaglio.errors import DeviceFailed, IntaglioError, InvalidRequest, SwapFailed
from intaglio.loras.files import Component
from intaglio.loras.merge import LoraMerge, Recipe, groups
from intaglio.loras.recipes import SetRecipes
from intaglio.loras.sets import set_digest, set_text
from intaglio.loras.store import LoraStore
from intaglio.loras.targets import SwapLayers

__all__ = ["LoraSwitch", "SwapCounts"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SwapCounts:
    """What the metrics report."""

    swaps: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Of all swaps."""
    last_seconds: float = 0.0
    last_writing: float = 0.0
    """Share of `last_seconds` in which the engines took the new weights. The rest was reading files,
    computing and uploading.
    """


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A set with the recipes of its weights."""

    loras: tuple[ResolvedLora, ...]
    digest: str
    text_digest: str
    weights: Mapping[Component, Mapping[str, Recipe]]


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
        """`engines` hold the pristine weights now; without `merge` the host computes all new values."""
        self._engines = engines
        self._layers = layers
        self._merge = merge
        dtypes = {component: compute_dtype(engine.precision) for component, engine in engines.items()}
        self._recipes = SetRecipes(layers, store, dtypes=dtypes, threads=threads, merge=merge)
        self._touched: dict[Component, set[str]] = {component: set() for component in engines}
        """Initializers whose values may differ from the pristine ones."""
        self._groups: dict[Component, Mapping[str, tuple[str, ...]]] = {}
        """By initializer, those that its engine takes only together with it; asked when first needed."""
        self.resident: tuple[ResolvedLora, ...] | None = ()
        """None while weights are being replaced, and after that has failed."""
        self.digest = set_digest(())
        self.text_digest = set_digest(())
        """Digest of the LoRAs that change a text encoder. Sets that differ only in the UNet encode prompts
        alike.
        """
        self.counts = SwapCounts()

    def warm_up(self) -> None:
        """Set up everything that the first swap would wait for."""
        for component in self._engines:
            self._joined(component)
        if self._merge is not None:
            self._merge.warm_up()

    def ensure(self, asked: tuple[ResolvedLora, ...]) -> float:
        """Make `asked` the resident set; seconds that took, 0 where it already is.

        Raises:
            InvalidRequest: `asked` can never be applied, because a file does not fit this build or a weight
                is too large. The resident set stays.
            SwapFailed: says why, and which set is resident instead.
            DeviceFailed: the card computes nothing more.
        """
        if self.resident is not None and set_digest(asked) == self.digest:
            return 0.0
        started = time.perf_counter()
        before = self.resident
        try:
            prepared = self._prepared(asked)
            writing = self._replace(prepared)
        except (InvalidRequest, DeviceFailed):  # no weight changed yet, or none can be restored
            self.counts.failures += 1
            raise
        except (IntaglioError, MemoryError) as error:
            self.counts.failures += 1
            after = self._after_failure(before)
            raise SwapFailed(f"loras: cannot apply {set_text(asked)}: {error}; {after}") from error
        seconds = time.perf_counter() - started
        self.counts.swaps += 1
        self.counts.seconds += seconds
        self.counts.last_seconds = seconds
        self.counts.last_writing = writing
        log.info("resident: %s (%.3f s)", set_text(asked), seconds)
        return seconds

    def _prepared(self, asked: tuple[ResolvedLora, ...]) -> _Prepared:
        """Everything that a swap to `asked` needs; no weight changes yet."""
        opened = [self._recipes.opened(lora) for lora in sorted(asked, key=lambda lora: lora.id)]
        in_text = [lora for lora, file in opened if set(file.targets) != {"unet"}]
        return _Prepared(asked, set_digest(asked), set_digest(in_text), self._recipes.of_set(opened))

    def _replace(self, prepared: _Prepared) -> float:
        """Give the engines the weights of a set; seconds that the engines took."""
        self.resident = None
        seconds = 0.0
        for component in self._engines:
            new = prepared.weights.get(component, {})
            changed = self._touched[component] | set(new)
            if not changed:
                continue
            joined = self._joined(component)
            changed = changed.union(*(joined[name] for name in changed if name in joined))
            # Whatever the set does not change is pristine afterwards, also a weight that is written only
            # because it is joined with another.
            restored = {
                name: Recipe(self._recipes.pristine(component, name)) for name in sorted(changed - set(new))
            }
            self._touched[component] = changed
            seconds += self._refit(component, {**restored, **new})
        self._touched = {component: set(prepared.weights.get(component, {})) for component in self._engines}
        self.resident = prepared.loras
        self.digest = prepared.digest
        self.text_digest = prepared.text_digest
        return seconds

    def _joined(self, component: Component) -> Mapping[str, tuple[str, ...]]:
        """The group of each weight that its engine takes only together with others."""
        if component not in self._groups:
            started = time.perf_counter()
            stored = self._layers.pristine[component].tensors
            sizes = {name: math.prod(tensor.shape) for name, tensor in stored.items()}
            found = self._engines[component].joined(sizes)
            self._groups[component] = {name: tuple(sorted(group)) for group in found for name in group}
            log.info(
                "%s: %d groups of joined weights, the largest has %d (%.2f s)",
                component,
                len(found),
                max(map(len, found), default=0),
                time.perf_counter() - started,
            )
        return self._groups[component]

    def _refit(self, component: Component, recipes: Mapping[str, Recipe]) -> float:
        """Give an engine the values of `recipes`; seconds that the engine took.

        With a merge the values go in turns that stay within its staging memory, but weights that are joined
        always go together.
        """
        engine, joined = self._engines[component], self._joined(component)
        units: dict[str, list[str]] = {}
        for name in recipes:
            first = joined[name][0] if name in joined else name
            units.setdefault(first, []).append(name)
        sizes = {first: sum(recipes[name].values.nbytes for name in names) for first, names in units.items()}
        limit = sum(sizes.values()) if self._merge is None else self._merge.staging_bytes
        seconds = 0.0
        for turn in groups(sizes, limit):
            names = [name for first in turn for name in units[first]]
            values = self._values({name: recipes[name] for name in names})
            started = time.perf_counter()
            engine.refit(values)
            seconds += time.perf_counter() - started
        return seconds

    def _values(self, recipes: Mapping[str, Recipe]) -> Mapping[str, Array | DeviceArray]:
        """New values on the host, or with a merge where the engines are."""
        if self._merge is None:
            return {name: recipe.values for name, recipe in recipes.items()}
        staged = self._merge.stage(recipes)
        self._merge.backend.synchronize()
        return {**staged}

    def _after_failure(self, before: tuple[ResolvedLora, ...] | None) -> str:
        """Restore `before` where weights were already being replaced; what is resident now, in words.

        Raises:
            DeviceFailed: the card failed meanwhile.
        """
        if self.resident is None and before is not None:
            try:
                self._replace(self._prepared(before))
            except DeviceFailed:
                raise
            except (IntaglioError, MemoryError):
                log.exception("the set before could not be restored")
        if self.resident is None:
            return "nothing is resident until a swap succeeds"
        return f"still resident: {set_text(self.resident)}"
