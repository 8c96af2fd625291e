"""`intaglio bench quality`. What reaches a server, and what draws, is imported when the command runs."""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio_client.bench.quality.command_options import Extractors, Options, Out, Reference
from intaglio_client.tune.options import Configs, Deadline, Judge, Prompts, Scenes, Seed, Url

__all__ = ["quality"]


def quality(  # noqa: PLR0913  (one option a choice)
    configs: Configs,
    *,
    prompts: Prompts = None,
    options: Options = None,
    scenes: Scenes = None,
    seed: Seed = 0,
    judge: Judge = None,
    extractors: Extractors = None,
    reference: Reference = None,
    out: Out = None,
    url: Url = None,
    deadline: Deadline = 300.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw scenes with every build and every option that changes the picture: figures beside seconds.

    A second call with the same options goes on where the first stopped. With --quiet only the path of the
    report is printed.
    """
    from intaglio.serving.build_check import check_build
    from intaglio_client.bench.machine import describe_machine
    from intaglio_client.bench.quality.measures import compared_rows, measures_of, opened_networks
    from intaglio_client.bench.quality.options import NO_OPTION, OPTIONS, few_step_settings, possible
    from intaglio_client.bench.quality.report import Quality, cells_of, data_of, header_of, notes_of
    from intaglio_client.bench.quality.written import write_quality
    from intaglio_client.tune.command import check_names, scenes_of
    from intaglio_client.tune.filter_judge import asked_judge
    from intaglio_client.tune.grid import read_grid
    from intaglio_client.tune.run import Built, draw_builds, measure_rows
    from intaglio_client.tune.serving import Asked

    printed = Output(json=json, quiet=quiet)
    deployments = [load_deployment(path) for path in configs]
    first = deployments[0]
    check_names(deployments)
    drawn = scenes_of(first, prompts, loras=[], seed=seed)[:scenes]
    looking = opened_networks(extractors, reference)
    measures = measures_of(looking, asked_judge(judge), drawn)
    tried = (*(read_grid(options) if options else OPTIONS), *few_step_settings(first))
    settings, left_out = possible(first, tried, drawn)
    folder = out or Path("out/quality") / first.name
    builds = [Built(deployment, check_build(deployment)) for deployment in deployments]
    drawings = draw_builds(
        builds,
        drawn,
        settings,
        (NO_OPTION,),
        folder=folder,
        asked=Asked(url, deadline),
        console=printed.progress,
    )
    rows = measure_rows(builds, drawings, NO_OPTION, measures)
    found = Quality(
        first.name,
        builds[0].described,
        len(drawn),
        seed,
        rows,
        describe_machine(Path(__file__).parent, card=first.execution.gpu),
        left_out,
        compared_rows(looking, drawings, rows),
    )
    files = write_quality(found, folder)
    printed.result(
        table_of(cells_of(found), header=header_of(found), right=(1,)),
        *("", *notes_of(found)),
        *("", *map(str, files.values())),
        data={"files": files, **data_of(found)},
        brief=str(files["page"]),
    )
