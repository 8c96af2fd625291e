"""intaglio through Triton over gRPC: start, images, a restart, every size; with the most card memory as the
driver sees it.

python -m benchmarks.speed.served CASE.json WORK_FOLDER [--part served_sizes --each 10]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measuring.case import Case, Stopwatch, end_orderly_on_terminate, spread
from benchmarks.measuring.results import write_part
from benchmarks.speed.engines import parameters_of
from intaglio.engines.card import PeakWatch
from intaglio.errors import ConfigError
from intaglio.serving.build_check import check_build
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.memory import GIB, predict_memory
from intaglio.serving.memory_limits import check_memory
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.image import Image

_DEADLINE = 300


def open_server(case: Case) -> Server:
    """The case's build on free ports."""
    return Server(case.deployment, endpoints=Endpoints())


def ask(client: Client, case: Case, image: int) -> Image:
    """One image."""
    return client.generate(case.prompt_of(image), **parameters_of(case, image))


def main(
    case: Path,
    work: Path,
    part: Annotated[str, typer.Option(help="Name in the results.")] = "served",
    each: Annotated[int, typer.Option(help="Images of every size; 0 for none.")] = 0,
) -> None:
    """Measure the served path."""
    told, watch, name = Case.read(case), Stopwatch(), part
    told.draw_controls(told.images)
    (work / name).mkdir(parents=True, exist_ok=True)
    manifest = check_build(told.deployment)
    values: dict[str, Any] = {"predicted_mib": predict_memory(told.deployment, manifest).bytes >> 20}
    with PeakWatch() as peak:
        values["card_free_before_mib"] = None if peak.before is None else peak.before.free >> 20
        for start in ("first start", "restart"):
            with watch.lap(f"{start} to first image"):
                server = open_server(told)
                server.__enter__()
                try:
                    client = Client(server.grpc_url, deadline=_DEADLINE)
                    ask(client, told, -1)
                except BaseException:
                    server.close()
                    raise
            try:
                if start == "restart":
                    _measure(client, told, watch, work / name)
                    values |= {"seconds": watch.spreads(), "memory_report": server.memory_report}
                    write_part(work, name, values)
                    if each:
                        _every_size(client, told, values, each)
            finally:
                client.close()
                server.close()
            values["card_peak_mib"] = None if peak.taken is None else peak.taken >> 20
            write_part(work, name, values | {"seconds": watch.spreads()})
    values["refused"] = _refusal(told)
    write_part(work, name, values)


def _measure(client: Client, case: Case, watch: Stopwatch, folder: Path) -> None:
    for image in range(case.images):
        with watch.lap("end_to_end"):
            made = ask(client, case, image)
        for stage, seconds in made.timings.items():
            watch.laps.setdefault(stage, []).append(seconds)
        np.save(folder / f"{image}.npy", made.pixels)


def _every_size(client: Client, case: Case, values: dict[str, Any], each: int) -> None:
    values["sizes"] = {}
    for width, height in case.deployment.profiles.sizes:
        own, sized = Stopwatch(), case.at(width, height)
        sized.draw_controls(each)
        ask(client, sized, -1)
        for image in range(each):
            with own.lap("image"):
                made = ask(client, sized, image)
            if made.pixels.shape != (height, width, 3):
                raise ValueError(f"asked for {width}x{height}, got {made.pixels.shape}")
        values["sizes"][f"{width}x{height}"] = spread(own.laps["image"])


def _refusal(case: Case) -> str:
    """What a configuration with a limit below the need is told; it must be refused before anything is loaded."""
    deployment = case.deployment
    need = predict_memory(deployment, check_build(deployment)).bytes / GIB
    short = deployment.model_copy(update={"memory_limit_gib": round(need / 2, 3)})
    try:
        check_memory(short, check_build(deployment))
    except ConfigError as refusal:
        return str(refusal)
    raise ValueError("a configuration that needs twice its memory_limit_gib was not refused")


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
