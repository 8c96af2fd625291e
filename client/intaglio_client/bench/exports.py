"""What perf_analyzer writes of every request (`--profile-export-file`), and what of it is kept.

The file holds all outputs, also the bytes of pictures, as text that is not UTF-8. Read as Latin-1 it is JSON,
and a picture's text is its bytes. A digest replaces them, which tells whether two pictures are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from intaglio.errors import IntaglioError
from intaglio_client.bench.runs import Run

__all__ = ["Sample", "read_export", "samples_of", "without_pictures"]

_PICTURES: Final = ("image", "preview")
_NANO: Final = 1e9


@dataclass(frozen=True, slots=True)
class Sample:
    """One request that was answered."""

    place: int
    """In the order of the load, from 0."""
    kind: str
    sent: float
    """Seconds after the first request that was measured."""
    seconds: float
    """Until the picture was there."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage, as the server measured them; empty where the answer has none."""
    picture: str | None = None
    """sha256 of its pictures."""
    first_event: float | None = None
    """Seconds until the first event of a stream."""
    first_preview: float | None = None


def read_export(path: Path) -> list[dict[str, Any]]:
    """The requests in an export, without pictures, in the order in which they were sent.

    Raises:
        IntaglioError: it is not what perf_analyzer writes, or it has no request.
    """
    try:
        data = json.loads(path.read_bytes().decode("latin-1"), strict=False)
        (experiment,) = data["experiments"]
        requests: list[dict[str, Any]] = experiment["requests"]
        requests.sort(key=lambda request: int(request["timestamp"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntaglioError(f"{path}: cannot be read as perf_analyzer's export: {error!r}") from error
    if not requests:
        raise IntaglioError(f"{path}: perf_analyzer measured no request")
    return [without_pictures(request) for request in requests]


def without_pictures(request: Mapping[str, Any]) -> dict[str, Any]:
    """`request` with a digest in the place of each picture, and texts as Unicode."""
    outputs = [
        {name: _kept(name, value) for name, value in output.items()}
        for output in request.get("response_outputs", ())
    ]
    inputs = {name: _kept("", value) for name, value in request.get("request_inputs", {}).items()}
    return {**request, "request_inputs": inputs, "response_outputs": outputs}


def _kept(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    data = value.encode("latin-1")
    if name in _PICTURES:
        return f"sha256:{hashlib.sha256(data).hexdigest()}" if data else ""
    return data.decode("utf-8", errors="replace")


def samples_of(run: Run, requests: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """The requests that are measured, in their order: neither the warm-up nor what came after the last.

    `requests` are all that were answered, in the order in which they were sent.

    Raises:
        IntaglioError: one is missing, or an answer is not what was asked for.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for index, request in enumerate(requests):
        # Near the end perf_analyzer begins the load anew; such a request is not the one that is measured.
        found.setdefault(_place(run, index, request), request)
    wanted = range(run.warm_up, run.total)
    missing = [place for place in wanted if place not in found]
    if missing:
        raise IntaglioError(
            f"{run.name}: {len(missing)} of {run.requests} requests had no answer when perf_analyzer ended; "
            "the server does not keep up with this load"
        )
    first = min(int(found[place]["timestamp"]) for place in wanted)
    return [_sample(run, place, found[place], first) for place in wanted]


def _place(run: Run, index: int, request: Mapping[str, Any]) -> int:
    """Which request of the load this is: the seed says so, where the answer has metadata."""
    found = [_json_of(output, "metadata") for output in request["response_outputs"]]
    seeds = [metadata["seed"] for metadata in found if metadata and "seed" in metadata]
    place = index % len(run.asked)
    if not seeds:
        return place
    if not 0 <= seeds[0] < len(run.asked):
        raise IntaglioError(f"{run.name}: an answer has the seed {seeds[0]}, which no request has")
    return int(seeds[0])


def _sample(run: Run, place: int, request: Mapping[str, Any], first: int) -> Sample:
    sent = int(request["timestamp"])
    times = [(int(time) - sent) / _NANO for time in request["response_timestamps"]]
    outputs = request["response_outputs"]
    if not times or not times[-1] > 0:
        raise IntaglioError(f"{run.name}: a request has no answer")
    streamed = run.kind == "streaming"
    previews = [time for time, output in zip(times, outputs, strict=False) if output.get("preview")]
    timings = _json_of(outputs[-1], "timings") if outputs else None
    picture = outputs[-1].get("image") if outputs else None
    if outputs and not picture:
        raise IntaglioError(f"{run.name}: a request got no picture: {_event_of(outputs[-1])}")
    return Sample(
        place=place,
        kind=run.asked[place].kind,
        sent=(sent - first) / _NANO,
        seconds=times[-1],
        stages={} if timings is None else {name: float(value) for name, value in timings.items()},
        picture=picture,
        first_event=times[0] if streamed else None,
        first_preview=previews[0] if streamed and previews else None,
    )


def _event_of(output: Mapping[str, Any]) -> str:
    return str(output.get("event") or "its last answer has none")


def _json_of(output: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The JSON object in an output; None where it is absent or empty."""
    text = output.get(name)
    try:
        value = json.loads(text) if text else None
    except (ValueError, TypeError):
        return None
    return value if isinstance(value, dict) else None
