"""`intaglio tune CONFIG`: find the cheapest settings that draw the same picture, and write presets of them.

What reaches a server is imported when the command runs: its help must not need gRPC.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import ConfigError
from intaglio_client.tune.options import (
    Configs,
    Deadline,
    ExtractorFile,
    Grid,
    Judge,
    Loras,
    Out,
    PresetsFile,
    Prompts,
    Scenes,
    Seed,
    Small,
    Url,
)

if TYPE_CHECKING:
    from intaglio_client.tune.grid import Grid as ChosenGrid
    from intaglio_client.tune.scenes import Scene

__all__ = ["app", "check_names", "scenes_of"]

app = typer.Typer(name="tune", add_completion=False)

_QUICK_SCENES: Final = 6


@app.command()
def tune(  # noqa: PLR0913  (one option a choice)
    configs: Configs,
    *,
    prompts: Prompts = None,
    grid: Grid = None,
    quick: Small = False,
    scenes: Scenes = None,
    seed: Seed = 0,
    lora: Loras = None,
    judge: Judge = None,
    extractor: ExtractorFile = None,
    out: Out = None,
    presets: PresetsFile = None,
    url: Url = None,
    deadline: Deadline = 300.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw scenes with many settings, and find the cheapest that draw what a converged picture shows.

    A second call with the same options goes on where the first stopped. With --quiet only the path of the
    presets is printed.
    """
    from intaglio.serving.build_check import check_build
    from intaglio_client.tune.filter_judge import asked_judge
    from intaglio_client.tune.grid import ANCHORS
    from intaglio_client.tune.judges import Extractor
    from intaglio_client.tune.presets_file import check_presets_file
    from intaglio_client.tune.report import cells_of, data_of, header_of, notes_of
    from intaglio_client.tune.run import (
        Built,
        Measures,
        draw_builds,
        measure_rows,
        results_of,
        settings_of,
        write_results,
    )
    from intaglio_client.tune.serving import Asked

    printed = Output(json=json, quiet=quiet)
    deployments = [load_deployment(path) for path in configs]
    first = deployments[0]
    check_names(deployments)
    measures = Measures(
        judge=asked_judge(judge, scores=True), extractor=Extractor(extractor) if extractor else None
    )
    most = scenes or (_QUICK_SCENES if quick else None)
    drawn = scenes_of(first, prompts, loras=lora or [], seed=seed)[:most]
    chosen = _chosen(first, grid, drawn, quick=quick)
    for line in chosen.left_out:
        printed.note(line)
    folder = out or Path("out/tune") / first.name
    target = presets or folder / "presets.yaml"
    check_presets_file(target)
    builds = [Built(deployment, check_build(deployment)) for deployment in deployments]
    drawings = draw_builds(
        builds,
        drawn,
        settings_of(chosen),
        ANCHORS,
        folder=folder,
        asked=Asked(url, deadline),
        console=printed.progress,
    )
    printed.note(f"measuring {len(drawn) * sum(len(one.settings) for one in drawings)} pictures")
    rows = measure_rows(builds, drawings, chosen.reference, measures)
    results = results_of(builds[0], drawn, seed, chosen, rows)
    written = write_results(results, drawings[0], chosen.reference, folder, target)
    files = dataclasses.asdict(written)
    table = table_of(cells_of(results), header=header_of(results), right=(1,))
    lines = [f"{name:<8} {path}" for name, path in files.items()]
    printed.result(
        table,
        *("", *notes_of(results)),
        *("", *lines),
        data={"files": files, **data_of(results)},
        brief=str(written.presets),
    )


def _chosen(deployment: Deployment, grid: Path | None, scenes: Sequence[Scene], *, quick: bool) -> ChosenGrid:
    """What is tried of `scenes`: the settings of the file `grid`, else ours, and the few-step LoRAs."""
    from intaglio_client.tune.grid import FULL, QUICK, grid_of, lora_settings, read_grid

    own = QUICK if quick else FULL
    return grid_of(
        deployment,
        (*(read_grid(grid) if grid else own), *lora_settings(deployment)),
        controls=max(len(scene.controls) for scene in scenes),
        pixels=max(scene.width * scene.height for scene in scenes),
    )


def check_names(deployments: list[Deployment]) -> None:
    """Raise ConfigError where two configurations have one name."""
    names = [deployment.name for deployment in deployments]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two configurations are named {name}; give each a name of its own")


def scenes_of(
    deployment: Deployment, prompts: Path | None, *, loras: list[str], seed: int
) -> tuple[Scene, ...]:
    """The scenes of the file or our own, with `loras` applied to each."""
    from intaglio_client.generate.option_texts import lora_from_text
    from intaglio_client.tune.scenes import default_scenes, read_scenes, seeded

    found = default_scenes(deployment) if prompts is None else read_scenes(prompts, deployment)
    added = tuple(lora_from_text(text) for text in loras)
    return tuple(dataclasses.replace(scene, loras=(*scene.loras, *added)) for scene in seeded(found, seed))
