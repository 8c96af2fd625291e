"""A workload: kinds of requests, and the loads that send them, as a strict YAML file.

`closed` keeps a number of requests under way. `open` sends at Poisson arrivals, whether or not the server
keeps up. `streaming` is `closed` on `sdxl_stream`. `growth` sends one request at a time and varies one input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, validated
from intaglio.errors import ConfigError
from intaglio.validation_errors import problems_text

__all__ = [
    "SCENARIOS",
    "Closed",
    "ControlEntry",
    "Growth",
    "Load",
    "Open",
    "RequestKind",
    "Scenario",
    "Streaming",
    "Varied",
    "Workload",
    "read_workload",
]

Scenario = Literal["SingleStream", "Server", "Offline"]
"""Names of MLPerf Inference."""
Varied = Literal["steps", "num_images", "size", "controls", "clients", "lora_sets"]
SCENARIOS: Final[dict[Scenario, str]] = {
    "SingleStream": "closed with concurrency [1]",
    "Server": "open",
    "Offline": "closed with a concurrency of all its requests",
}
"""What kind of load each scenario is."""


_NOT_INPUTS: Final = {
    "seed": "every request has a seed of its own",
    "prompt": "take the key prompts",
    "controls": "take the key controls beside inputs",
    "loras": "take the key loras beside inputs",
}


class ControlEntry(Strict):
    """A control of a request: an image or a pose of the server's library."""

    type: RegistryId
    image: Path | None = None
    """Relative to the YAML file."""
    pose: str | None = None
    weight: float = 1.0
    begin: float = 0.0
    end: float = 1.0
    every: PositiveInt | None = None
    preprocess: str = "none"


class RequestKind(Strict):
    """Requests that differ in prompt and seed only. No two requests of a load have the same seed."""

    prompts: tuple[str, ...] = Field(min_length=1)
    """Taken in turn."""
    distinct_prompts: bool = False
    """Whether each request's prompt gets a number and its load's name: no cache has its text embedding."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Inputs of `sdxl`, such as width, height, steps."""
    controls: tuple[ControlEntry, ...] = ()
    loras: dict[RegistryId, float | None] = Field(default_factory=dict)
    """LoRA or preset: its weight, null for the registry's."""

    @model_validator(mode="after")
    def _no_input_twice(self) -> Self:
        for name, right in _NOT_INPUTS.items():
            if name in self.inputs:
                raise ValueError(f"inputs: {name} does not belong here; {right}")
        return self


class _Load(Strict):
    requests: PositiveInt
    """How many are measured at each value."""
    warm_up: NonNegativeInt = 1
    """Requests before them, at each value, that are not measured."""
    mix: dict[str, PositiveInt]
    """Kind of request: its weight."""
    scenario: Scenario | None = None
    """What MLPerf calls this load."""


class Closed(_Load):
    """A number of requests is always under way."""

    kind: Literal["closed"]
    concurrency: tuple[PositiveInt, ...] = Field(min_length=1)


class Open(_Load):
    """Requests come at random times, at a mean rate."""

    kind: Literal["open"]
    rates: tuple[PositiveFloat, ...] = Field(min_length=1)
    """Requests a second."""
    latency_limit: PositiveFloat | None = None
    """Seconds that 99 of 100 requests may take, for the scenario Server."""


class Streaming(_Load):
    """`closed`, on `sdxl_stream`."""

    kind: Literal["streaming"]
    concurrency: tuple[PositiveInt, ...] = Field(min_length=1)
    preview: PositiveInt | None = None
    """Longest side of the previews in pixels; absent: none."""
    slice_steps: PositiveInt | None = None
    """Steps between two events; absent: the server's."""


class Growth(_Load):
    """One request at a time, while one input grows; or more and more of them."""

    kind: Literal["growth"]
    vary: Varied
    values: tuple[PositiveInt | tuple[PositiveInt, PositiveInt] | NonNegativeInt, ...] = Field(min_length=2)
    """Of `size` pairs of width and height; of `controls` how many of the request's controls are used; of
    `clients` how many requests are under way; of `lora_sets` how many sets the requests have in turn, each of
    one of the request's LoRAs: from 2 on the server changes its weights from request to request.
    """

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        for value in self.values:
            if isinstance(value, tuple) != (self.vary == "size"):
                right = "[width, height]" if self.vary == "size" else "a number"
                raise ValueError(f"values: {value!r} of {self.vary}; allowed: {right}")
            if value == 0 and self.vary not in ("controls", "lora_sets"):
                raise ValueError(f"values: 0 of {self.vary}; allowed: 1 and above")
        if len(self.mix) != 1:
            raise ValueError("mix: growth compares requests of one kind; name exactly one")
        return self


Load = Closed | Open | Streaming | Growth
_KINDS: Final[dict[str, type[Load]]] = {
    "closed": Closed, "open": Open, "streaming": Streaming, "growth": Growth,
}  # fmt: skip


class Workload(Strict):
    """A whole file."""

    name: RegistryId
    about: str
    """One line for the report."""
    requests: dict[RegistryId, RequestKind] = Field(min_length=1)
    loads: dict[RegistryId, Load] = Field(min_length=1)

    @model_validator(mode="after")
    def _loads_fit(self) -> Self:
        for name, load in self.loads.items():
            for kind in load.mix:
                if kind not in self.requests:
                    known = ", ".join(self.requests)
                    raise ValueError(f"loads.{name}.mix: no request is named {kind!r}; allowed: {known}")
            if not load.mix:
                raise ValueError(f"loads.{name}.mix: empty; allowed: {', '.join(self.requests)}")
            if load.scenario is not None and not _is_scenario(load, load.scenario):
                right = SCENARIOS[load.scenario]
                raise ValueError(f"loads.{name}: {load.scenario} is a load of kind {right}")
        unused = set(self.requests) - {kind for load in self.loads.values() for kind in load.mix}
        if unused:
            raise ValueError(f"requests: no load sends {', '.join(sorted(unused))}")
        return self


def _is_scenario(load: Load, scenario: Scenario) -> bool:
    match scenario:
        case "SingleStream":
            return isinstance(load, Closed) and load.concurrency == (1,)
        case "Server":
            return isinstance(load, Open)
        case "Offline":
            return isinstance(load, Closed) and load.concurrency == (load.requests,) and not load.warm_up


def read_workload(path: Path) -> Workload:
    """The workload in `path`.

    Raises:
        ConfigError: names the key that is wrong and what would be right.
    """
    data = read_yaml(path, hint="; a workload is a YAML file such as benchmarks/workloads/miniature.yaml")
    if "name" in data:
        raise ConfigError(f"{path}: name: is the file's name and is not stated")
    loads = data.get("loads")
    if isinstance(loads, dict):
        data["loads"] = {one: _load(values, f"{path}: loads.{one}") for one, values in loads.items()}
    workload = validated(Workload, {"name": path.stem, **data}, path)
    return workload.model_copy(update={"requests": _with_whole_paths(workload, path)})


def _load(values: Any, where: str) -> Any:
    """The load of its kind: an error then speaks of that kind's keys alone."""
    if not isinstance(values, dict):
        return values
    kind = _KINDS.get(str(values.get("kind")))
    if kind is None:
        raise ConfigError(f"{where}.kind is {values.get('kind')!r}; allowed: {', '.join(_KINDS)}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {problems_text(error, kind)}") from error


def _with_whole_paths(workload: Workload, path: Path) -> dict[str, RequestKind]:
    found = {}
    for name, kind in workload.requests.items():
        controls = []
        for control in kind.controls:
            image = control.image
            if image is not None:
                image = (path.parent / image.expanduser()).resolve()
                if not image.is_file():
                    raise ConfigError(f"{path}: requests.{name}.controls: {image}: no such file")
            controls.append(control.model_copy(update={"image": image}))
        found[name] = kind.model_copy(update={"controls": tuple(controls)})
    return found
