"""`intaglio bench`: measure a server under the loads of a workload, and compare what was measured.

`intaglio bench WORKLOAD.yaml` is short for `intaglio bench run WORKLOAD.yaml`. What reaches a server, and
what draws, is imported when the command runs: its help must not need gRPC.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError
from intaglio.exit_codes import FAILED
from intaglio_client.address import URL_VARIABLE, check_url
from intaglio_client.bench.quality.command import quality
from intaglio_client.bench.quality.parity_command import parity
from intaglio_client.bench.roofline.command import roofline
from intaglio_client.bench.workload import read_workload

__all__ = ["app"]


class _RunByDefault(TyperGroup):
    """Takes a workload in the place of a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before arguments that begin with no command."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="bench",
    cls=_RunByDefault,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(quality)
app.command()(parity)
app.command()(roofline)

_Workload = Annotated[
    Path,
    typer.Argument(
        help="YAML file of requests and loads (docs/benchmarking.md), such as "
        "benchmarks/workloads/miniature.yaml.",
        show_default=False,
    ),
]
_Loads = Annotated[
    list[str] | None,
    typer.Option("--load", help="Measure only this load of the workload; repeatable.", show_default=False),
]

_Url = Annotated[
    str | None,
    typer.Option(
        envvar=URL_VARIABLE,
        help="host:port of the server's gRPC; by default one of the --config's build that you run here, "
        "else one that is started.",
    ),
]
_Config = Annotated[
    Path | None, typer.Option(help="Deployment YAML whose build is measured.", show_default=False)
]
_Out = Annotated[
    Path | None,
    typer.Option(help="Folder of results and reports; by default out/bench/NAME.", show_default=False),
]
_Tool = Annotated[
    Path | None,
    typer.Option(
        "--perf-analyzer",
        help="Folder that a perf_analyzer was installed into, where none is on PATH; by default "
        "build/tools/perf_analyzer.",
        show_default=False,
    ),
]
_Seconds = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Time for everything. Loads that do not fit into it wait for the next call.",
        show_default=False,
    ),
]
_Plots = Annotated[
    bool,
    typer.Option("--plots/--no-plots", help="Whether to draw the plots, which needs the extra bench."),
]


@app.callback()
def bench() -> None:
    """Measure a server with NVIDIA's perf_analyzer; compare measurements.

    `intaglio bench WORKLOAD.yaml` is short for `intaglio bench run WORKLOAD.yaml`.
    """


@app.command()
def run(  # noqa: PLR0913  (one option a choice)
    workload: _Workload,
    *,
    url: _Url = None,
    config: _Config = None,
    load: _Loads = None,
    out: _Out = None,
    tool: _Tool = None,
    seconds: _Seconds = None,
    plots: _Plots = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the loads of a workload against a server, and write a report.

    A second call with the same arguments measures only the loads that have no result yet. `report.json` is
    written after each load. With --quiet only the path of the report is printed.
    """
    from intaglio_client.bench.measure import Task, measure
    from intaglio_client.bench.report import HEADER, cells_of, data_of, notes_of
    from intaglio_client.bench.runs import runs_of
    from intaglio_client.bench.tool import DEFAULT_FOLDER, find_tool
    from intaglio_client.bench.written import write_data, write_report

    draw = _drawing(plots=plots)
    ends = math.inf if seconds is None else time.monotonic() + seconds

    printed = Output(json=json, quiet=quiet)
    asked = read_workload(workload)
    runs = [one for one in runs_of(asked) if not load or one.load in load]
    _check_loads(load, list(asked.loads))
    at = None if url is None else check_url(url)
    found = find_tool(tool or DEFAULT_FOLDER)
    folder = out or Path("out/bench") / asked.name
    deployment = load_deployment(config) if config else None
    measured = measure(
        Task(runs, found, folder, ends),
        url=at,
        deployment=deployment,
        console=printed.progress,
        keep=lambda so_far: write_data(data_of(so_far, asked), folder),
    )
    data = data_of(measured, asked)
    written = write_report(data, folder, draw(data))
    files = {"page": written.page, "data": written.data, "plots": written.plots, "loads": written.loads}
    shown = [written.page, written.data, *written.plots, written.loads]
    printed.result(
        table_of(cells_of(data), header=HEADER, right=(2, 3, 4, 5, 6, 7)),
        *("", *notes_of(data)),
        *("", *map(str, shown)),
        data={
            "files": files,
            **{key: value for key, value in data.items() if key != "loads"},
            **_brief(data),
        },
        brief=str(written.page),
    )
    if any(one["failed"] for one in data["loads"]):
        raise typer.Exit(FAILED)


def _drawing(*, plots: bool) -> Callable[[Mapping[str, Any]], Mapping[str, bytes]]:
    """What draws the plots. A machine without matplotlib says so before anything is measured."""
    if not plots:
        return lambda data: {}
    from intaglio_client.bench.plots import drawn_plots

    return drawn_plots


def _check_loads(wanted: list[str] | None, known: list[str]) -> None:
    for name in wanted or ():
        if name not in known:
            raise ConfigError(f"--load: the workload has no load {name!r}; allowed: {', '.join(known)}")


def _brief(data: dict[str, Any]) -> dict[str, Any]:
    """The loads without their samples, which `report.json` has."""
    return {"loads": [{name: one[name] for name in one if name != "samples"} for one in data["loads"]]}


_Report = Annotated[Path, typer.Argument(help="report.json of a measurement.", show_default=False)]


@app.command()
def compare(before: _Report, after: _Report, *, json: Json = False, quiet: Quiet = False) -> None:
    """Say of each load whether B is faster than A, slower, or no difference is shown.

    The exit code is 1 where a load is slower. With --quiet only the names of slower loads are printed.
    """
    from intaglio_client.bench.comparison import HEADER, cells_of, compare_reports, data_of
    from intaglio_client.bench.written import read_report

    printed = Output(json=json, quiet=quiet)
    found = compare_reports(read_report(before), read_report(after))
    printed.result(
        table_of(cells_of(found), header=HEADER),
        *("", *found.notes),
        data=data_of(found),
        brief="\n".join(found.slower),
    )
    if found.slower:
        raise typer.Exit(FAILED)


@app.command()
def turns(  # noqa: PLR0913  (one option a choice)
    workload: _Workload,
    *,
    first: Annotated[str, typer.Option("--a", help="host:port of the first server's gRPC.")],
    second: Annotated[str, typer.Option("--b", help="host:port of the second server's gRPC.")],
    load: Annotated[
        str | None,
        typer.Option(help="Load whose requests are drawn; by default the first.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option("--turns", min=8, help="How often each server draws them.")] = 24,
    measure: Annotated[
        Literal["cpu", "wall"],
        typer.Option(help="Processor time of the servers' processes on this machine, or the clock."),
    ] = "cpu",
    same_pictures: Annotated[
        bool, typer.Option("--same-pictures", help="Fail also where a picture differs between the servers.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let two servers draw the same pictures in turns, and say whether B is slower than A.

    The exit code is 1 where B is slower. With --quiet only the verdict is printed.
    """
    from intaglio.progress import progress_for
    from intaglio_client.bench.gate import judge_turns
    from intaglio_client.bench.runs import runs_of
    from intaglio_client.bench.turns import Side, server_process, take_turns
    from intaglio_client.client import Client

    printed = Output(json=json, quiet=quiet)
    asked = read_workload(workload)
    _check_loads([load] if load else None, list(asked.loads))
    chosen = next(one for one in runs_of(asked) if load in (None, one.load))
    if chosen.kind == "streaming":
        raise ConfigError(f"--load: {chosen.load} streams; allowed: a load of another kind")
    with Client(check_url(first)) as one, Client(check_url(second)) as two:
        processes = [server_process(client.url) if measure == "cpu" else None for client in (one, two)]
        if measure == "cpu" and processes[0] == processes[1]:
            raise ConfigError("--a and --b are the same server")
        sides = (Side(one, processes[0]), Side(two, processes[1]))
        with progress_for(printed.progress, float(count)) as progress:
            progress.started(f"{chosen.load}: {count} turns of {chosen.requests} pictures")
            taken = list(take_turns(sides, chosen, count, done=lambda: progress.finished(1.0)))
    judged = judge_turns(taken, measure=measure)
    printed.result(judged.summary(), data=judged.data(), brief=judged.verdict)
    if judged.verdict == "slower" or (same_pictures and judged.differing):
        raise typer.Exit(FAILED)
