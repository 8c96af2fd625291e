"""What is said of a Triton model: its tensors, its entry class, how it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from intaglio.contract.ports import Port

__all__ = ["EnsembleStep", "ModelSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One Triton model."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    entry: str | None = None
    """`module:class` of a Python model; None for the ensemble."""
    public: bool = False
    """Whether clients call it; the others are stages that a public model calls."""
    decoupled: bool = False
    """Whether a request may get several responses."""
    device: Literal["cpu", "gpu"] = "cpu"
    doc: str = ""

    def input(self, name: str) -> Port:
        """The input called `name`; KeyError when there is none."""
        return self._port(self.inputs, name)

    def output(self, name: str) -> Port:
        """The output called `name`; KeyError when there is none."""
        return self._port(self.outputs, name)

    def _port(self, ports: tuple[Port, ...], name: str) -> Port:
        for port in ports:
            if port.name == name:
                return port
        raise KeyError(f"{self.name} has no tensor {name!r}")


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step of `sdxl`; both maps go from the stage's tensor name to the ensemble's."""

    model: str
    input_map: Mapping[str, str] = field(default_factory=dict)
    output_map: Mapping[str, str] = field(default_factory=dict)
