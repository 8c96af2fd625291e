"""What the LoRA benchmark makes for itself before it measures: LoRA files, a registry, and two deployments of
the same base.

    loras/<id>.safetensors    random LoRAs over all attention and feed-forward matrices of the UNet: speed does not depend on values
    configs/swap.yaml         serves them; no ControlNets, the first size only
    configs/fused.yaml        the same with the first two fused: what a step is compared with, and what a rebuild rebuilds
All of it, and both builds, lie in the work folder, so nothing of the deployment itself is touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import yaml
from safetensors.numpy import save

from benchmarks.measuring.case import deployment_values
from intaglio.contract.config import Deployment, load_deployment
from intaglio.loras.files import LayerTable
from intaglio_export.weights.registry import base_layers

__all__ = [
    "LORAS",
    "RETRAINED",
    "LoraCase",
    "config_of",
    "lora_file",
    "prepare",
    "random_lora",
    "use_in_fused",
]

LORAS: Final = ("one", "two", "three")
"""Served; the set that is measured is the first two."""
RETRAINED: Final = "retrained"
"""Another version of the first."""
_CURRENT: Final = "current"
"""The file that the fused deployment has as its first LoRA."""


@dataclass(frozen=True)
class LoraCase:
    """How much is measured, and of which base."""

    config: str
    rank: int = 64
    swaps: int = 6
    """Of each kind."""
    steps: int = 10
    """Of a run, between whose ends a step is measured."""
    load_seconds: float = 60.0
    load_swaps: int = 50
    """The load goes on until so many swaps were made."""
    clients: int = 8
    staging_mib: int | None = None
    """`execution.lora_staging_mib`, where it is not to be the usual."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The case in a JSON file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Keep it for the parts' processes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def config_of(work: Path, name: str) -> Path:
    """`swap` or `fused`."""
    return work / "configs" / f"{name}.yaml"


def lora_file(work: Path, name: str) -> Path:
    """One of `LORAS`, or `RETRAINED`."""
    return work / "loras" / f"{name}.safetensors"


def random_lora(table: LayerTable, *, rank: int, seed: int) -> bytes:
    """A LoRA in diffusers' layout, in float16, over every attention and feed-forward matrix of the UNet."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for module, shape in table["unet"].items():
        if len(shape) == 2 and ".transformer_blocks." in module:
            outputs, inputs = shape
            used = min(rank, outputs, inputs)
            tensors[f"unet.{module}.lora_A.weight"] = (
                0.02 * rng.standard_normal((used, inputs), np.float32)
            ).astype(np.float16)
            tensors[f"unet.{module}.lora_B.weight"] = (
                0.02 * rng.standard_normal((outputs, used), np.float32)
            ).astype(np.float16)
    return save(tensors)


def prepare(case: LoraCase, work: Path) -> None:
    """Write what is not there yet."""
    deployment = load_deployment(Path(case.config))
    missing = [
        (seed, name) for seed, name in enumerate((*LORAS, RETRAINED)) if not lora_file(work, name).is_file()
    ]
    table = base_layers(deployment.base) if missing else {}
    for seed, name in missing:
        path = lora_file(work, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(random_lora(table, rank=case.rank, seed=seed))
        new.rename(path)
    if not lora_file(work, _CURRENT).is_file():
        use_in_fused(work, LORAS[0])
    registry = work / "configs" / "registry.yaml"
    registry.parent.mkdir(parents=True, exist_ok=True)
    _write_yaml(
        registry, {"loras": {name: {"file": str(lora_file(work, name)), "kind": "style"} for name in LORAS}}
    )
    swap = _values(deployment, work) | {"registry": str(registry), "swap": "transformer"}
    if case.staging_mib is not None:
        swap["execution"]["lora_staging_mib"] = case.staging_mib
    _write_yaml(config_of(work, "swap"), swap)
    fused = {
        name: {"path": str(lora_file(work, _CURRENT if name == LORAS[0] else name))} for name in LORAS[:2]
    }
    # diffusers fuses with peft, which not every GPU host has.
    fuse = {"loras": fused, "fuse": dict.fromkeys(fused)} if find_spec("peft") is not None else {}
    _write_yaml(config_of(work, "fused"), _values(deployment, work) | fuse)


def use_in_fused(work: Path, name: str) -> None:
    """Make `name` the fused deployment's first LoRA."""
    new = lora_file(work, _CURRENT).with_suffix(".new")
    shutil.copyfile(lora_file(work, name), new)
    new.rename(lora_file(work, _CURRENT))


def _values(deployment: Deployment, work: Path) -> dict[str, Any]:
    """The deployment's fields without LoRAs and ControlNets, at its first size, built in `work`."""
    values = deployment_values(deployment)
    values.pop("controlnets", None)
    values["profiles"]["sizes"] = values["profiles"]["sizes"][:1]
    values["profiles"]["guidance"] = ["on"]
    return values | {"build": str((work / "build").resolve())}


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
