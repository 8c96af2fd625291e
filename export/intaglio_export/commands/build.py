"""`intaglio build CONFIG`."""

# ruff: noqa: PLC0415  (--help needs no library)

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from intaglio_export.commands.progress import reporter_for
from intaglio_export.plan.pruning import KEPT_RESULTS
from intaglio_export.plan.stages import StageOutcome

__all__ = ["app"]

app = typer.Typer(
    name="build", help="Compile a deployment: weights -> fused -> ONNX -> engines -> model repository."
)


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
) -> None:
    """Build a deployment; only what changed is done again. A file counts as unchanged while its size and time
    are; --check and --force read it.

    With --target, the build goes to <build>/<name>-<target>, beside the build for this machine.
    """
    from intaglio_export.build import BuildOptions, build_deployment

    console = Console(highlight=False)
    options = BuildOptions(
        runtime=runtime,
        target=target,
        output=output,
        force=force,
        check=check,
        keep=None if keep_all else keep,
    )
    with reporter_for(console) as reporter:
        result = build_deployment(config, options, reporter=reporter)
    console.print(_table(result.outcomes))
    for message in result.messages:
        console.print(escape(message), style="yellow")
    manifest = result.manifest
    console.print(
        f"{manifest.runtime} {manifest.target}, build {manifest.key[:12]}: {escape(str(result.folder))}",
        soft_wrap=True,
    )


def _table(outcomes: Iterable[StageOutcome]) -> Table:
    table = Table("stage", "", "why", "seconds", box=None, padding=(0, 2))
    for outcome in outcomes:
        if outcome.done:
            table.add_row(outcome.name, "done", escape(outcome.reason), f"{outcome.seconds:.1f}")
        else:
            table.add_row(outcome.name, "skipped", escape(outcome.reason), "")
    return table
