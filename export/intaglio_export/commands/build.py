"""`intaglio build CONFIG`."""

# ruff: noqa: PLC0415  (--help needs no library)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio_export.commands.progress import reporter_for
from intaglio_export.plan.pruning import KEPT_RESULTS

if TYPE_CHECKING:
    from intaglio_export.build import BuildResult

__all__ = ["app"]

app = typer.Typer(name="build", add_completion=False)


@app.command()
def build(  # noqa: PLR0913  (one option a choice)
    config: Annotated[
        Path, typer.Argument(help="Deployment YAML, such as configs/miniature.yaml.", show_default=False)
    ],
    *,
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime, tensorrt-rtx or tensorrt instead of the configuration's.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Card to build for, here or elsewhere: sm86 (RTX 30), sm89 (RTX 40), sm120 (RTX 50)."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of all builds instead of the configuration's `build`.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Do every stage again.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Read every file again; what is damaged is done again, whatever its time."
        ),
    ] = False,
    keep: Annotated[
        int,
        typer.Option(min=1, help="Newest results of every stage that are kept though no build names them."),
    ] = KEPT_RESULTS,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Remove no earlier result.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build a deployment; only what changed is done again. A file counts as unchanged while its size and time
    are; --check and --force read it.

    With --target, the build goes to <build>/<name>-<target>, beside the build for this machine. With --quiet
    only the folder of the build is printed.
    """
    from intaglio_export.build import BuildOptions, build_deployment

    printed = Output(json=json, quiet=quiet)
    options = BuildOptions(
        runtime=runtime,
        target=target,
        output=output,
        force=force,
        check=check,
        keep=None if keep_all else keep,
    )
    with reporter_for(printed.progress) as reporter:
        result = build_deployment(config, options, reporter=reporter)
    for message in result.messages:
        printed.note(message, style="yellow")
    manifest = result.manifest
    made = f"{manifest.runtime} {manifest.target}, build {manifest.key[:12]}: {result.folder}"
    printed.result(_table(result), made, data=_data(result), brief=str(result.folder))


def _table(result: BuildResult) -> Table:
    rows = []
    for outcome in result.outcomes:
        done = "done" if outcome.done else "skipped"
        seconds = f"{outcome.seconds:.1f}" if outcome.done else ""
        rows.append((outcome.name, done, outcome.reason, seconds))
    return table_of(rows, header=("stage", "", "why", "seconds"), right=(3,))


def _data(result: BuildResult) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "build": manifest.key,
        "folder": result.folder,
        "runtime": manifest.runtime,
        "target": manifest.target,
        "stages": [
            {
                "stage": outcome.name,
                "done": outcome.done,
                "why": outcome.reason,
                "seconds": outcome.seconds if outcome.done else 0.0,
            }
            for outcome in result.outcomes
        ],
        "messages": result.messages,
    }
