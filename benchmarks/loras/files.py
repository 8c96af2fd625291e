"""What the LoRA benchmark makes before it measures: LoRA files, a registry, and two deployments of one base.

    loras/<id>.safetensors    random LoRAs over all attention and feed-forward matrices of the UNet
    configs/swap.yaml         serves them; no ControlNets, the first size only
    configs/fused.yaml        the same with the first two fused: a step is compared with its step, and its
                              build is the one that is built again
Speed does not depend on the values of a LoRA. Everything lies in the work folder, the builds too, so the
deployment that was given is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save

from benchmarks.measuring.case import deployment_values
from intaglio.contract.config import Deployment, load_deployment
from intaglio.loras.files import LayerTable
from intaglio.whole_files import write_whole
from intaglio_export.weights.registry import base_layers

__all__ = [
    "LORAS",
    "RETRAINED",
    "LoraCase",
    "config_of",
    "lora_file",
    "random_lora",
    "use_in_fused",
    "write_configs",
    "write_loras",
]

LORAS: Final = ("one", "two", "three")
"""The ids that are served; the set that is measured is the first two."""
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
    """How many of each kind are timed."""
    steps: int = 10
    """A step is what a run takes longer with this many more steps, divided by them."""
    load_seconds: float = 60.0
    load_swaps: int = 50
    """The load goes on until this many swaps were made."""
    clients: int = 8
    staging_mib: int | None = None
    """`execution.lora_staging_mib`; None for its default."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The case in a JSON file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write it for the processes of the parts."""
        write_whole(path, json.dumps(asdict(self)).encode())


def config_of(work: Path, name: str) -> Path:
    """The configuration `swap` or `fused`."""
    return work / "configs" / f"{name}.yaml"


def lora_file(work: Path, name: str) -> Path:
    """The file of one of `LORAS`, or of `RETRAINED`."""
    return work / "loras" / f"{name}.safetensors"


def random_lora(table: LayerTable, *, rank: int, seed: int) -> bytes:
    """A LoRA in diffusers' layout, in float16, over every attention and feed-forward matrix of the UNet."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for module, shape in table["unet"].items():
        if len(shape) != 2 or ".transformer_blocks." not in module:
            continue
        outputs, inputs = shape
        used = min(rank, outputs, inputs)
        tensors[f"unet.{module}.lora_A.weight"] = _small_noise(rng, (used, inputs))
        tensors[f"unet.{module}.lora_B.weight"] = _small_noise(rng, (outputs, used))
    return save(tensors)


def _small_noise(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float16]:
    return (0.02 * rng.standard_normal(shape, np.float32)).astype(np.float16)


def write_loras(case: LoraCase, work: Path) -> None:
    """Write the LoRA files that are not there yet."""
    names = (*LORAS, RETRAINED)
    missing = [name for name in names if not lora_file(work, name).is_file()]
    # Reading the base's layers takes seconds.
    table = base_layers(load_deployment(Path(case.config)).base) if missing else {}
    for name in missing:
        write_whole(lora_file(work, name), random_lora(table, rank=case.rank, seed=names.index(name)))
    if not lora_file(work, _CURRENT).is_file():
        use_in_fused(work, LORAS[0])


def write_configs(case: LoraCase, work: Path) -> None:
    """Write the registry and both configurations. A run of other parts may read them meanwhile."""
    deployment = load_deployment(Path(case.config))
    registry = work / "configs" / "registry.yaml"
    entries = {name: {"file": str(lora_file(work, name)), "kind": "style"} for name in LORAS}
    _write_yaml(registry, {"loras": entries})
    swap = _values(deployment, work) | {"registry": str(registry), "swap": "transformer"}
    if case.staging_mib is not None:
        swap["execution"]["lora_staging_mib"] = case.staging_mib
    _write_yaml(config_of(work, "swap"), swap)
    fused = _values(deployment, work)
    # diffusers fuses with peft, which not every GPU host has.
    if find_spec("peft") is not None:
        files = {LORAS[0]: lora_file(work, _CURRENT), LORAS[1]: lora_file(work, LORAS[1])}
        fused["loras"] = {name: {"path": str(path)} for name, path in files.items()}
        fused["fuse"] = dict.fromkeys(files)
    _write_yaml(config_of(work, "fused"), fused)


def use_in_fused(work: Path, name: str) -> None:
    """Make the file of `name` the fused deployment's first LoRA."""
    write_whole(lora_file(work, _CURRENT), lora_file(work, name).read_bytes())


def _values(deployment: Deployment, work: Path) -> dict[str, Any]:
    """The deployment's fields without LoRAs and ControlNets, at its first size, built in `work`."""
    values = deployment_values(deployment)
    values.pop("controlnets", None)
    values["profiles"]["sizes"] = values["profiles"]["sizes"][:1]
    values["profiles"]["guidance"] = ["on"]
    return values | {"build": str((work / "build").resolve())}


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, yaml.safe_dump(dict(values), sort_keys=False).encode())
