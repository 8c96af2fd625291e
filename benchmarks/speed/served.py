"""intaglio through Triton over gRPC: a start, a restart, images, every size, and the most card memory.

    python -m benchmarks.speed.served CASE.json WORK_FOLDER [--part served_sizes --each 10]
Card memory is what the driver reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch, spread
from benchmarks.measuring.watches import CARD, free_before_mib, peak_mib
from intaglio.engines.card import PeakWatch
from intaglio.errors import ConfigError
from intaglio.serving.build_check import check_build
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.memory import GIB, predict_memory
from intaglio.serving.memory_limits import check_memory
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.image import Image

__all__ = ["ask", "open_server"]

_DEADLINE: Final = 300
"""Seconds that one image may take."""


def open_server(case: Case) -> Server:
    """The case's build on free ports."""
    return Server(case.deployment, endpoints=Endpoints())


def ask(client: Client, case: Case, image: int, **options: Any) -> Image:
    """One image; `options` are further parameters of the request."""
    return client.generate(case.prompt_of(image), **case.parameters_of(image, **options))


@contextmanager
def _started(case: Case, watch: Stopwatch, name: str) -> Iterator[tuple[Server, Client]]:
    """A server and a client of it, timed from the start to the first image."""
    with ExitStack() as stack:
        with watch.lap(f"{name} to first image"):
            server = stack.enter_context(open_server(case))
            client = stack.enter_context(Client(server.grpc_url, deadline=_DEADLINE))
            ask(client, case, -1)
        yield server, client


def main(
    case: Path,
    work: Path,
    part: Annotated[str, typer.Option(help="Name in the results.")] = "served",
    each: Annotated[int, typer.Option(help="Images of every size; 0 for none.")] = 0,
) -> None:
    """Measure the served path."""
    told = Case.read(case)
    told.draw_controls(told.images)
    watch = Stopwatch()
    (work / part).mkdir(parents=True, exist_ok=True)
    manifest = check_build(told.deployment)
    values: dict[str, Any] = {"predicted_mib": predict_memory(told.deployment, manifest).bytes >> 20}

    def keep(**found: Any) -> None:
        values.update(found)
        write_part(work, part, values)

    with PeakWatch(CARD) as peak:
        values["card_free_before_mib"] = free_before_mib(peak)
        with _started(told, watch, "first start"):
            pass
        keep(card_peak_mib=peak_mib(peak), seconds=watch.spreads())
        with _started(told, watch, "restart") as (server, client):
            _measure_images(client, told, watch, work / part)
            keep(seconds=watch.spreads(), memory_report=server.memory_report)
            if each:
                keep(sizes=_measure_sizes(client, told, each))
        keep(card_peak_mib=peak_mib(peak))
    keep(refused=_refusal(told))


def _measure_images(client: Client, case: Case, watch: Stopwatch, folder: Path) -> None:
    """The case's images, kept in `folder`; seconds of each and of its stages."""
    for image in range(case.images):
        with watch.lap("end_to_end"):
            made = ask(client, case, image)
        for stage, seconds in made.timings.items():
            watch.laps.setdefault(stage, []).append(seconds)
        np.save(folder / f"{image}.npy", made.pixels)


def _measure_sizes(client: Client, case: Case, each: int) -> dict[str, dict[str, float]]:
    """Seconds an image of every size."""
    found = {}
    for width, height in case.deployment.profiles.sizes:
        watch = Stopwatch()
        sized = case.at(width, height)
        sized.draw_controls(each)
        ask(client, sized, -1)
        for image in range(each):
            with watch.lap("image"):
                made = ask(client, sized, image)
            if made.pixels.shape != (height, width, 3):
                raise ValueError(f"asked for {width}x{height}, got {made.pixels.shape}")
        found[f"{width}x{height}"] = spread(watch.laps["image"])
    return found


def _refusal(case: Case) -> str:
    """What a configuration is told whose limit is half of what it needs: it must be refused before a load."""
    deployment = case.deployment
    manifest = check_build(deployment)
    need = predict_memory(deployment, manifest).bytes / GIB
    short = deployment.model_copy(update={"memory_limit_gib": round(need / 2, 3)})
    try:
        check_memory(short, manifest)
    except ConfigError as refusal:
        return str(refusal)
    raise ValueError("a configuration that needs twice its memory_limit_gib was not refused")


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
