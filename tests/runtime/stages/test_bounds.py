"""What stages keep between requests is bounded, whatever clients choose. docs/operating.md has the table."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from .diffuse.inputs import for_diffuse

REQUESTS = 30


def containers(root: Any) -> dict[str, int]:
    """Entries of every dict, list and set that the package's objects below `root` hold, by path."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [(type(root).__name__, root)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict | OrderedDict):
            found[path] = found.get(path, 0) + len(value)
            waiting += [(f"{path}[]", item) for item in value.values()]
        elif isinstance(value, list | tuple | set):
            found[path] = found.get(path, 0) + len(value)
            waiting += [(f"{path}[]", item) for item in value]
        elif type(value).__module__.startswith("intaglio."):
            waiting += [(f"{path}.{name}", item) for name, item in attributes(value)]
    return found


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        yield from ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
    else:
        yield from getattr(value, "__dict__", {}).items()


def random_request(rng: random.Random, number: int) -> dict[str, Any]:
    width, height = rng.choice([(64, 96), (72, 64)])
    kinds = rng.choices(["pose", "canny"], k=rng.randrange(3))
    return {
        "prompt": f"{number} " + "word " * rng.choice([3, 90]),
        "negative_prompt": f"not {number}",
        "seed": number,
        "width": width,
        "height": height,
        "steps": rng.randrange(1, 6),
        "num_images": rng.randrange(1, 4),
        "guidance_scale": rng.choice([1.0, 4.0]),
        "guidance_end": rng.choice([0.5, 1.0]),
        "scheduler": rng.choice(["euler", "euler_a"]),
        "controls": json.dumps([{"type": kind, "pose": "waving-01"} for kind in kinds]),
    }


def test_nothing_that_stages_keep_grows_with_requests(tiny: Any, request_tensors: Any) -> None:
    rng = random.Random(0)
    halves: list[dict[str, int]] = [{}, {}]
    backend = tiny.backend
    with (
        Preprocess(tiny.manifest, tiny.folder) as preprocess,
        Diffuse(tiny.manifest, tiny.folder, backend=backend) as diffuse,
    ):
        for number in range(2 * REQUESTS):
            arrays = preprocess(request_tensors(**random_request(rng, number)))
            diffuse(for_diffuse(arrays))
            backend.runs.clear()  # the test backend's own log
            half = halves[number // REQUESTS]
            for stage in (preprocess, diffuse):
                for path, size in containers(stage).items():
                    half[path] = max(half.get(path, 0), size)
    first, second = halves
    assert {path: size for path, size in second.items() if size > first.get(path, 0)} == {}
    caches = [path for path in second if path.endswith(("_entries", "_workspaces", "_tables", "_bound"))]
    assert len(caches) >= 5, "the walk reaches the caches"
