"""A LoRA switch over plain arrays, the networks they came from, and what a test wants to go wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.tensors import Precision
from intaglio.engines.interface import Array
from intaglio.engines.onnxruntime import HostArray
from intaglio.errors import EngineMismatch, IntaglioError, SwapFailed
from intaglio.loras.merge import LoraMerge
from intaglio.loras.store import LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SWAPPED, SwapLayers
from intaglio.loras.tensor_files import map_tensor_file

LORAS = ("style", "style-kohya", "character", "locon")
"""In diffusers' layout, in kohya's with and without text encoders, and with convolutions."""


@dataclass
class PlainEngine:
    """The weights of an engine, and what a test wants to go wrong."""

    weights: dict[str, Array]
    precision: str = "fp32"
    failures: int = 0
    error: type[Exception] = IntaglioError
    refits: list[set[str]] = field(default_factory=list)
    groups: tuple[frozenset[str], ...] = ()
    """What a compiler joined: given whole or refused."""

    def joined(self, sizes: Mapping[str, int]) -> tuple[frozenset[str], ...]:
        assert sizes == {name: values.size for name, values in self.weights.items()}
        return self.groups

    def refit(self, weights: Mapping[str, Any]) -> None:
        given = {
            name: values.values if isinstance(values, HostArray) else values
            for name, values in weights.items()
        }
        assert all(
            values.dtype == self.weights[name].dtype and values.shape == self.weights[name].shape
            for name, values in given.items()
        )
        self.refits.append(set(weights))
        if missing := {
            name for group in self.groups if group & set(weights) for name in group - set(weights)
        }:
            raise EngineMismatch(
                f"refit also needs {', '.join(sorted(missing)[:5])}", command="intaglio build x.yaml"
            )
        if self.failures:
            self.failures -= 1
            for name, values in given.items():  # whatever it left there must not be served
                self.weights[name] = np.full_like(values, 7)
            raise self.error("refit failed; see the log")
        for name, values in given.items():
            self.weights[name] = values.copy()


@dataclass
class World:
    """A switch over plain weights, and the networks they came from."""

    switch: LoraSwitch
    engines: dict[Any, PlainEngine]
    pristine: dict[Any, dict[str, Array]]
    store: LoraStore
    digests: dict[str, str]

    def lora(self, name: str, weight: float = 1.0) -> ResolvedLora:
        return ResolvedLora(id=name, sha256=self.digests[name], weight=weight)

    def is_pristine(self) -> bool:
        return all(
            np.array_equal(values, self.pristine[component][name])
            for component, engine in self.engines.items()
            for name, values in engine.weights.items()
        )

    def module(self, component: Any, module: str) -> Array:
        """The weights of a module, as torch has them."""
        weights = self.engines[component].weights
        stem = f"{'unet' if component == 'unet' else 'network'}.{module}.weight"
        return weights[stem] if stem in weights else weights[f"{stem}.T"].T


def open_world(
    files: Path, folder: Path, *, precision: Precision = "fp32", merge: LoraMerge | None = None
) -> World:
    store = LoraStore(folder / "loras")
    digests = {name: store.put(name, files / f"{name}.safetensors")[0] for name in LORAS}
    pristine_files = {component: map_tensor_file(files / f"{component}.pristine") for component in SWAPPED}
    dtype = "float16" if precision == "fp16" else "float32"
    pristine = {
        component: {name: file.read(name).astype(dtype) for name in file.tensors}
        for component, file in pristine_files.items()
    }
    engines: Any = {component: PlainEngine(dict(values), precision) for component, values in pristine.items()}
    switch = LoraSwitch(engines, SwapLayers(pristine_files), store=store, threads=1, merge=merge)
    return World(switch, engines, pristine, store, digests)


def published(world: World, data: bytes) -> ResolvedLora:
    digest = hashlib.sha256(data).hexdigest()
    world.store.path(digest).write_bytes(data)
    return ResolvedLora(id="bad", sha256=digest, weight=1.0)


def refused_by_engine(world: World, *loras: ResolvedLora) -> str:
    with pytest.raises(SwapFailed) as failed:
        world.switch.ensure(loras)
    return str(failed.value)


def assert_equals_fresh(world: World, loras: tuple[ResolvedLora, ...]) -> None:
    """The weights are those of a switch that never had another set on."""
    engines: Any = {component: PlainEngine(dict(values)) for component, values in world.pristine.items()}
    LoraSwitch(engines, world.switch._layers, store=world.store, threads=1, merge=world.switch._merge).ensure(
        loras
    )
    for component, engine in engines.items():
        assert all(
            np.array_equal(values, world.engines[component].weights[name])
            for name, values in engine.weights.items()
        )
