"""`intaglio bench parity`. What reaches a server is imported when the command runs."""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio.exit_codes import FAILED
from intaglio_client.address import check_url
from intaglio_client.tune.options import Deadline, Judge, Prompts, Scenes, Seed

__all__ = ["parity"]


def parity(  # noqa: PLR0913  (one option a choice)
    config: Annotated[
        Path, typer.Argument(help="Deployment YAML that both servers serve.", show_default=False)
    ],
    *,
    first: Annotated[str, typer.Option("--a", help="host:port of the first server's gRPC.")],
    second: Annotated[str, typer.Option("--b", help="host:port of the second server's gRPC.")],
    prompts: Prompts = None,
    scenes: Scenes = None,
    seed: Seed = 0,
    judge: Judge = None,
    extractors: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of networks for a perceptual distance and CLIP score (docs/benchmarking.md).",
            show_default=False,
        ),
    ] = None,
    least_psnr: Annotated[
        float | None,
        typer.Option(
            help="dB: B is worse where a picture is further from A's than this.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures; by default out/parity/NAME.", show_default=False),
    ] = None,
    deadline: Deadline = 300.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let two servers draw the same scenes, and say whether B's pictures are worse than A's.

    The exit code is 1 where they are worse. With --quiet only the verdict is printed.
    """
    from intaglio.builds.manifest import write_json
    from intaglio.progress import progress_for
    from intaglio_client.bench.quality.measures import measures_of, opened_networks
    from intaglio_client.bench.quality.parity import check_measures, compare, draw_both
    from intaglio_client.client import Client
    from intaglio_client.tune.command import scenes_of
    from intaglio_client.tune.filter_judge import asked_judge

    printed = Output(json=json, quiet=quiet)
    deployment = load_deployment(config)
    drawn = scenes_of(deployment, prompts, loras=[], seed=seed)[:scenes]
    looking = opened_networks(extractors, None)
    measures = measures_of(looking, asked_judge(judge), drawn)
    check_measures(measures, len(drawn), least_psnr=least_psnr)
    folder = out or Path("out/parity") / deployment.name
    with (
        Client(check_url(first), deadline=deadline) as one,
        Client(check_url(second), deadline=deadline) as two,
        progress_for(printed.progress, float(len(drawn))) as progress,
    ):
        pictures = draw_both((one, two), drawn, folder, progress)
    found = compare(pictures, measures, least_psnr=least_psnr)
    write_json(folder / "parity.json", found.data())
    printed.result(
        f"{found.verdict}: {found.equal} of {found.scenes} pictures are equal",
        table_of(found.cells(), header=("figure", "A", "B to A", "")),
        data={"folder": folder, **found.data()},
        brief=found.verdict,
    )
    if found.verdict == "worse":
        raise typer.Exit(FAILED)
