"""`intaglio batch SPEC`: draw many pictures, judge them, and keep a manifest.

What reaches a server is imported when the command runs: its help must not need gRPC.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from intaglio.command_output import Json, Output, Quiet, json_line, table_of
from intaglio.exit_codes import FAILED
from intaglio.whole_files import storage_problem, write_whole
from intaglio_client.address import DEFAULT_URL
from intaglio_client.batch.options import Apart, Deadline, DryRun, InFlight, NewSpec, Out, Spec, Urls, Wait
from intaglio_client.generate.options import Headers, TlsCa, TlsCert, TlsKey, Verbose

if TYPE_CHECKING:
    from intaglio_client.batch.combining import Items
    from intaglio_client.batch.folder import BatchFolder
    from intaglio_client.batch.run import Asked, Outcome
    from intaglio_client.batch.spec import BatchSpec

__all__ = ["app"]

app = typer.Typer(name="batch", add_completion=False)


@app.command()
def batch(  # noqa: PLR0913  (one option a choice)
    spec: Spec,
    *,
    out: Out = None,
    apart: Apart = False,
    new_spec: NewSpec = False,
    dry_run: DryRun = False,
    url: Urls = None,
    in_flight: InFlight = None,
    wait: Wait = 120.0,
    deadline: Deadline = 300.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    header: Headers = None,
    verbose: Verbose = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the pictures of a specification on one or several servers, judge them, and write a manifest and a
    contact sheet. The same command goes on where it was stopped. With --quiet only the path of the manifest
    is printed.
    """
    from intaglio_client.batch.combining import items_of
    from intaglio_client.batch.run import Asked
    from intaglio_client.batch.spec import read_spec
    from intaglio_client.generate.connection import settings_from_options
    from intaglio_client.generate.drawing import notes_after

    printed = Output(json=json, quiet=quiet)
    read = read_spec(spec)
    if apart:
        read = read.model_copy(update={"output": read.output.model_copy(update={"apart": True})})
    settings = settings_from_options(
        deadline=deadline, headers=header, ca=tls_ca, certificate=tls_cert, key=tls_key
    )
    asked = Asked(
        urls=tuple(dict.fromkeys(url or read.url or (DEFAULT_URL,))),
        settings=settings,
        in_flight=in_flight or read.in_flight,
        patience=wait,
    )
    with notes_after(printed, verbose=verbose):
        items = items_of(read, spec)
        if dry_run:
            _say_what(printed, read, items)
            return
        folder = out or read.output.folder or Path("out") / spec.stem
        code = _run(printed, read, items, asked, folder=folder, new_spec=new_spec)
    if code:
        raise typer.Exit(code)


def _say_what(printed: Output, spec: BatchSpec, items: Items) -> None:
    """How many pictures there are, in which groups of LoRAs, and the first of them."""
    most = spec.limits.tried
    first = items[0]
    loras = len(dict.fromkeys(items.lora_sets))
    rows = [
        ("pictures", str(len(items))),
        ("sets of LoRAs", str(loras)),
        ("limits", _limits_text(spec)),
        ("filters", ", ".join(one.name for one in spec.filters) or "none"),
        ("the first", json_line(first.inputs)),
    ]
    data = {"pictures": len(items), "lora_sets": loras, "tried": most, "first": dict(first.inputs)}
    printed.result(table_of(rows), data=data, brief=str(len(items)))


def _limits_text(spec: BatchSpec) -> str:
    limits = spec.limits
    parts = [
        f"{count} {name}"
        for name, count in (("accepted", limits.accepted), ("tried", limits.tried))
        if count is not None
    ]
    each = f" for each {limits.per}" if limits.per else ""
    return " or ".join(parts) + each if parts else "none"


def _run(
    printed: Output, spec: BatchSpec, items: Items, asked: Asked, *, folder: Path, new_spec: bool
) -> int:
    """Draw and report; the exit code."""
    from intaglio_client.batch.folder import BatchFolder
    from intaglio_client.batch.progress import progress_for
    from intaglio_client.batch.report import shortage
    from intaglio_client.batch.run import Batch, run_batch
    from intaglio_client.batch.stopping import stopped_by_signals
    from intaglio_client.filters.opening import opened_filters
    from intaglio_client.filters.servers import FilterServers

    with (
        stopped_by_signals() as stop,
        BatchFolder.opened(folder, spec) as opened,
        opened_filters(
            spec.filters, servers=FilterServers(asked.urls, asked.settings, asked.patience, stop.is_asked)
        ) as filters,
    ):
        records = opened.begin(items, new_spec=new_spec)
        printed.note(_beginning(len(items), len(records), asked.urls))
        batch = Batch(spec, items, opened, records, filters)
        try:
            with progress_for(printed.progress) as watching:
                outcome = run_batch(batch, asked, watching, stopped=stop.is_asked)
        finally:
            _write_sheet(opened, folder.name, printed)
        _report(printed, outcome, opened)
        if not outcome.is_complete:
            printed.problem(
                "stopped; what was being drawn is cancelled on the servers, the same command goes on"
            )
            return stop.code or 0
        short = shortage(outcome, spec.limits.accepted)
        if short:
            printed.problem(short)
        return FAILED if short else 0


def _beginning(pictures: int, kept: int, urls: tuple[str, ...]) -> str:
    going_on = f", {kept} of them are there" if kept else ""
    return f"at most {pictures} pictures{going_on}; drawing at {', '.join(urls)}"


def _write_sheet(folder: BatchFolder, title: str, printed: Output) -> None:
    """Write the contact sheet. A disk that is full must not hide why the batch ended."""
    from intaglio_client.batch.sheet import page_of, write_missing_thumbs

    records = folder.manifest.read()
    try:
        write_missing_thumbs(records, folder)
        write_whole(folder.sheet, page_of(title, records, folder).encode())
    except OSError as error:
        printed.problem(f"{folder.sheet}: not written: {storage_problem(error)}")


def _report(printed: Output, outcome: Outcome, folder: BatchFolder) -> None:
    from intaglio_client.batch.report import data_of, rows_of

    files = {"folder": folder.path, "manifest": folder.manifest.path, "sheet": folder.sheet}
    printed.result(
        table_of(rows_of(outcome, files)), data=data_of(outcome, files), brief=str(folder.manifest.path)
    )
