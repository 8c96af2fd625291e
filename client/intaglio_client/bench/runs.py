"""One run of perf_analyzer for each value of a load, and the requests that it sends, in their order."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from numpy.typing import NDArray

from intaglio.builds.manifest import content_key
from intaglio.contract.models import SDXL, SDXL_STREAM, ModelSpec
from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.bench.workload import (
    Closed,
    ControlEntry,
    Growth,
    Load,
    Open,
    RequestKind,
    Streaming,
    Workload,
)
from intaglio_client.controls import Control
from intaglio_client.parameters import Lora, tensors_from_parameters

__all__ = ["Asked", "Run", "arrivals", "first_of_each_kind", "input_data", "runs_of"]

_SEED_OF_ARRIVALS: Final = 20251130
"""Any number: the same in every run, so that two measurements wait for the same arrivals."""
RunKind = Literal["closed", "open", "streaming", "growth"]


@dataclass(frozen=True)
class Asked:
    """One request of a load."""

    kind: str
    """Its name in the workload."""
    prompt: str
    parameters: Mapping[str, Any]
    """As `Client.generate` takes them."""
    model: ModelSpec

    @property
    def seed(self) -> int:
        """Which no other request of the load has."""
        return int(self.parameters["seed"])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The inputs of the model; InvalidRequest where one is wrong."""
        return tensors_from_parameters(self.prompt, self.parameters, model=self.model)


@dataclass(frozen=True)
class Run:
    """What perf_analyzer does once."""

    load: str
    """The load's name in the workload."""
    kind: RunKind
    value: float
    """Concurrency of `closed` and `streaming`, requests a second of `open`, what grows of `growth`."""
    shown_value: str
    requests: int
    warm_up: int
    asked: tuple[Asked, ...]
    """One for each request, those of the warm-up first."""
    scenario: str | None = None
    latency_limit: float | None = None
    vary: str | None = None

    @property
    def name(self) -> str:
        """`closed-4`: also the name of its files."""
        return f"{self.load}-{self.shown_value}"

    @property
    def concurrency(self) -> int:
        """Requests under way."""
        return int(self.value) if self.kind in ("closed", "streaming") or self.vary == "clients" else 1

    @property
    def model(self) -> ModelSpec:
        """What is asked."""
        return self.asked[0].model

    @property
    def total(self) -> int:
        """Requests with those of the warm-up."""
        return self.requests + self.warm_up

    def digest(self) -> str:
        """Of all that is sent, and how."""
        fields = {
            one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "asked"
        }
        return content_key({**fields, "data": input_data(self.asked)})


def runs_of(workload: Workload) -> list[Run]:
    """Every run of `workload`, in the file's order.

    Raises:
        ConfigError: a request is not allowed; says which and why.
    """
    found = []
    for name, load in workload.loads.items():
        for run in _runs_of_load(name, load, workload):
            for one in run.asked[:1] if len(load.mix) == 1 else run.asked:
                _check(one, f"{workload.name}: requests.{one.kind}")
            found.append(run)
    return found


def _check(asked: Asked, where: str) -> None:
    try:
        asked.tensors()
    except InvalidRequest as error:
        raise ConfigError(f"{where}: {error}") from error


def _runs_of_load(name: str, load: Load, workload: Workload) -> Iterator[Run]:
    for value, shown in _values_of(load):
        yield Run(
            load=name,
            kind=load.kind,
            value=value,
            shown_value=shown,
            requests=load.requests,
            warm_up=load.warm_up,
            asked=tuple(_asked_of(f"{name} {shown}", load, shown, workload)),
            scenario=load.scenario,
            latency_limit=load.latency_limit if isinstance(load, Open) else None,
            vary=load.vary if isinstance(load, Growth) else None,
        )


def _values_of(load: Load) -> list[tuple[float, str]]:
    match load:
        case Closed() | Streaming():
            return [(float(value), str(value)) for value in load.concurrency]
        case Open():
            return [(value, f"{value:g}") for value in load.rates]
        case Growth():
            return [_growing(value) for value in load.values]


def _growing(value: int | tuple[int, int]) -> tuple[float, str]:
    """Sizes grow by their pixels."""
    if isinstance(value, tuple):
        return float(value[0] * value[1]), f"{value[0]}x{value[1]}"
    return float(value), str(value)


def _asked_of(run: str, load: Load, shown: str, workload: Workload) -> Iterator[Asked]:
    """One for each request of a run. Their seeds are their places, so an answer tells which one it is."""
    seen: dict[str, int] = {}
    for index, kind in enumerate(itertools.islice(_mixed(load.mix), load.requests + load.warm_up)):
        entry = workload.requests[kind]
        occurrence = seen.setdefault(kind, 0)
        seen[kind] += 1
        prompt = entry.prompts[occurrence % len(entry.prompts)]
        if entry.distinct_prompts:
            prompt = f"{prompt}, number {index + 1} of {run}"  # the run before has filled the server's cache
        parameters = {**_parameters_of(entry), **_varied(load, shown, entry, index), "seed": index}
        model = SDXL
        if isinstance(load, Streaming):
            model = SDXL_STREAM
            own = {"preview": load.preview, "slice_steps": load.slice_steps}
            parameters |= {name: value for name, value in own.items() if value is not None}
        yield Asked(kind, prompt, parameters, model)


def _mixed(mix: Mapping[str, int]) -> Iterator[str]:
    """The kinds, each as often as its weight says and spread evenly: {a: 3, b: 1} gives `a a b a`."""
    places = [((number + 0.5) / weight, kind) for kind, weight in mix.items() for number in range(weight)]
    return itertools.cycle([kind for _, kind in sorted(places, key=lambda place: place[0])])


def _parameters_of(entry: RequestKind) -> dict[str, Any]:
    found = dict(entry.inputs)
    if entry.controls:
        found["controls"] = [_control_of(control) for control in entry.controls]
    if entry.loras:
        found["loras"] = [Lora(name, weight) for name, weight in entry.loras.items()]
    return found


def _control_of(entry: ControlEntry) -> Control:
    return Control(
        entry.type,
        image=entry.image,
        pose=entry.pose,
        weight=entry.weight,
        begin=entry.begin,
        end=entry.end,
        every=entry.every,
        preprocess=entry.preprocess,
    )


def _varied(load: Load, shown: str, entry: RequestKind, index: int) -> dict[str, Any]:
    """What a growth load puts in the place of the request's own, in request number `index`."""
    if not isinstance(load, Growth) or load.vary == "clients":
        return {}
    if load.vary == "lora_sets":
        return {"loras": _set_in_turn(int(shown), entry, index)}
    if load.vary == "size":
        width, height = shown.split("x")
        return {"width": int(width), "height": int(height)}
    if load.vary == "controls":
        if int(shown) > len(entry.controls):
            raise ConfigError(
                f"growth of controls: {shown} are asked for, and the request has {len(entry.controls)}"
            )
        return {"controls": [_control_of(control) for control in entry.controls[: int(shown)]]}
    return {load.vary: int(shown)}


def _set_in_turn(sets: int, entry: RequestKind, index: int) -> list[Lora]:
    """One of the first `sets` LoRAs of the request; none of no sets."""
    if sets > len(entry.loras):
        raise ConfigError(
            f"growth of lora_sets: {sets} are asked for, and the request has {len(entry.loras)} LoRAs"
        )
    if sets == 0:
        return []
    name, weight = list(entry.loras.items())[index % sets]
    return [Lora(name, weight)]


def first_of_each_kind(runs: Sequence[Run]) -> list[Asked]:
    """One request of every kind for each model and value that grows: what differs in more than the seed."""
    found: dict[str, Asked] = {}
    for run in runs:
        for one in run.asked:
            named = {name: value for name, value in one.parameters.items() if name != "seed"}
            found.setdefault(f"{one.kind} {one.model.name} {named}", one)
    return list(found.values())


def input_data(asked: Sequence[Asked]) -> dict[str, Any]:
    """perf_analyzer's `--input-data`: every input with its shape. Bytes that are no text travel in base64,
    each with its length in 4 bytes before it, as Triton's raw tensors have it.
    """
    return {"data": [{name: _entry(array) for name, array in one.tensors().items()} for one in asked]}


def _entry(array: NDArray[Any]) -> dict[str, Any]:
    shape = list(array.shape)
    if array.dtype != object:
        return {"content": array.reshape(-1).tolist(), "shape": shape}
    values = [bytes(value) for value in array.reshape(-1)]
    try:
        texts = [value.decode() for value in values]
        # The old binary reads a text up to its first zero byte.
        if not any("\0" in text for text in texts):
            return {"content": texts, "shape": shape}
    except UnicodeDecodeError:
        pass
    raw = b"".join(struct.pack("<I", len(value)) + value for value in values)
    return {"content": {"b64": base64.b64encode(raw).decode()}, "shape": shape}


def arrivals(rate: float, count: int) -> list[int]:
    """Microseconds before each of `count` requests, of a Poisson process of `rate` a second.

    Its gaps are exponential. They are scaled so that the last request comes after `count / rate` seconds: few
    requests would otherwise come at quite another rate. Given that time, the others are as random as before.
    """
    drawn = random.Random(_SEED_OF_ARRIVALS)
    gaps = [drawn.expovariate(1.0) for _ in range(count)]
    scale = 1e6 * count / rate / sum(gaps)
    return [max(1, round(gap * scale)) for gap in gaps]
