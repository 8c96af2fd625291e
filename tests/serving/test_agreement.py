"""perf_analyzer, Triton's statistics and our own figures say the same of a request and of each of its stages.

    what              of the client                 of Triton                        our metrics
    a request         latency of perf_analyzer      `sdxl`: success
    preprocess        `timings` in the answer       `preprocess`: compute_infer
    diffuse           `timings` in the answer       `sdxl` but its other stages      queue, compute, steps
    postprocess       `timings` in the answer       `postprocess`: compute_infer

Triton's own figures of `diffuse` end when the request is queued, because that model answers from a thread of
its own. What it knows of the stage is what the ensemble's other stages leave.

One figure's interval lies within the other's: Triton's of a model has the way to its process and back, too. A
busy machine lengthens that way. So of several requests the ones that agree best are judged: what a figure
leaves out is missing from each of them.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image

from intaglio.serving.server import Server
from intaglio_client import Client, Control
from intaglio_client.bench.exports import read_export
from intaglio_client.bench.runs import runs_of
from intaglio_client.bench.tool import Files, find_tool
from intaglio_client.bench.workload import Workload

from .test_metrics import metrics_of

pytestmark = pytest.mark.slow
MODELS: Final = ("sdxl", "preprocess", "postprocess")
APART: Final = 0.05
WAY: Final = 0.001
"""Seconds of the way to a model's process and back: as much as 5 % of the 20 ms that `postprocess` takes."""
REQUESTS: Final = 6
SIDE: Final = 2048
"""Of control images, which `preprocess` takes a tenth of a second to read."""


@dataclass(frozen=True)
class Figures:
    """Sums since the start: Triton's seconds by model and kind, and our counters."""

    triton: Mapping[tuple[str, str], float]
    counts: Mapping[str, float]
    """Requests that Triton has counted, by model."""
    ours: Mapping[str, float]

    @classmethod
    def of(cls, server: Server) -> Figures:
        with triton.InferenceServerClient(server.grpc_url) as client:
            found = client.get_inference_statistics().model_stats
        stats = {model.name: model.inference_stats for model in found if model.name in MODELS}
        seconds = {
            (name, kind): getattr(one, kind).ns / 1e9
            for name, one in stats.items()
            for kind in ("success", "compute_infer")
        }
        counts = {name: one.success.count for name, one in stats.items()}
        ours = {name: value for name, value in metrics_of(server).items() if name.endswith("_total")}
        return cls(seconds, counts, ours)

    def grown(self, server: Server) -> Figures:
        """What has been since, once Triton has counted it: it does so a little after it has answered."""
        until = time.monotonic() + 30
        while True:
            now = Figures.of(server)
            found = Figures(
                *({key: late[key] - early[key] for key in early} for early, late in self._beside(now))
            )
            requests = {*found.counts.values(), found.ours["requests_total"]}
            if len(requests) == 1 and 0 not in requests:
                return found
            assert time.monotonic() < until, f"not all accounts have all requests: {found}"
            time.sleep(0.02)

    def _beside(self, now: Figures) -> list[tuple[Mapping[Any, float], Mapping[Any, float]]]:
        return [(self.triton, now.triton), (self.counts, now.counts), (self.ours, now.ours)]

    @property
    def diffuse(self) -> float:
        """Triton's seconds of the ensemble without its first and its last stage."""
        others = self.triton["preprocess", "success"] + self.triton["postprocess", "success"]
        return self.triton["sdxl", "success"] - others

    @property
    def own_diffuse(self) -> float:
        return self.ours["queue_seconds_total"] + self.ours["compute_seconds_total"]


def agree(parts: list[float], wholes: list[float], what: str) -> None:
    """No part is longer than its whole, and the best are nearly all of it."""
    ratios = [part / whole for part, whole in zip(parts, wholes, strict=True)]
    assert max(ratios) < 1 + APART, f"{what}: {ratios}"
    with_way = [(part + WAY) / whole for part, whole in zip(parts, wholes, strict=True)]
    assert max(with_way) > 1 - APART, f"{what}: {ratios}"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Large control images, each another, because `preprocess` keeps the maps of the last ones."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for number in range(REQUESTS + 1):
        coarse = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
        paths.append(folder / f"{number}.png")
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        smooth.save(paths[-1], compress_level=1)
    return paths


def asked(server: Server, photographs: list[Path]) -> Iterator[tuple[dict[str, float], Figures]]:
    """Pictures one at a time: the answer's timings, and what the figures grew by."""
    width, height = server.deployment.profiles.sizes[0]
    size: Any = {"width": width, "height": height, "steps": 4, "num_images": 4, "output_format": "webp"}
    with Client(server.grpc_url, deadline=120) as client:
        for number, path in enumerate(photographs):
            before = Figures.of(server)
            controls = [Control("depth", image=path)]
            made = client.generate_batch(f"a person, take {number}", seed=number, controls=controls, **size)
            grown = before.grown(server)
            if number:  # the first one opens and allocates
                yield dict(made[0].timings), grown


def test_every_stage_takes_as_long_by_all_accounts(server: Server, photographs: list[Path]) -> None:
    timings, grown = zip(*asked(server, photographs), strict=True)
    for stage in ("preprocess", "postprocess"):
        own = [one[stage] for one in timings]
        agree(own, [one.triton[stage, "compute_infer"] for one in grown], stage)
    computed = [sum(one[stage] for stage in ("text_encoders", "denoise", "vae")) for one in timings]
    agree(
        computed, [one.ours["compute_seconds_total"] for one in grown], "the stages of diffuse, as computed"
    )
    agree([one.own_diffuse for one in grown], [one.diffuse for one in grown], "diffuse")
    denoised = [one["denoise"] for one in timings]
    agree([one.ours["step_seconds_total"] for one in grown], denoised, "steps")
    whole = [one.triton["sdxl", "success"] for one in grown]
    agree(whole, [one["request"] for one in timings], "request")


@pytest.mark.long
def test_perf_analyzer_sees_what_triton_and_the_counters_see(
    server: Server, perf_analyzer_folder: Path, tmp_path: Path
) -> None:
    width, height = server.deployment.profiles.sizes[0]
    plain = {"prompts": ["a person"], "inputs": {"width": width, "height": height, "steps": 16}}
    load = {"kind": "closed", "concurrency": [2], "requests": 9, "warm_up": 0, "mix": {"plain": 1}}
    values = {"name": "w", "about": "agreement", "requests": {"plain": plain}, "loads": {"two": load}}
    (run,) = runs_of(Workload.model_validate(values))
    files = Files(tmp_path, run.name)
    before = Figures.of(server)
    find_tool(perf_analyzer_folder).run(run, server.grpc_url, files, expected=30)
    grown = before.grown(server)
    # Its summary is of all requests in its export, and not only of those that `intaglio bench` measures.
    client = statistics.fmean(
        (int(one["response_timestamps"][-1]) - int(one["timestamp"])) / 1e9
        for one in read_export(files.of("export.json"))
    )
    said = [
        float(found) / 1e6
        for found in re.findall(r"Avg (?:request )?latency: (\d+) usec", files.of("log").read_text())
    ]
    assert said[0] == pytest.approx(said[1], rel=APART), "client and server"
    assert client == pytest.approx(said[0], rel=APART), "its export and its summary"
    # All that were sent, whether or not perf_analyzer counted them.
    assert grown.own_diffuse == pytest.approx(grown.diffuse, rel=APART)
    assert grown.ours["queue_seconds_total"] > 0.5 * grown.ours["compute_seconds_total"], (
        "one waits for another"
    )
