"""`intaglio watch CONFIG` and `intaglio rollback CONFIG LORA`.

The store of LoRAs needs POSIX file locks, so each command imports it only when it runs.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from intaglio.command_output import Json, Output, Quiet
from intaglio.contract.config import load_deployment
from intaglio.errors import IntaglioError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio_client.address import URL_VARIABLE
from intaglio_client.generate.options import TlsCa, TlsCert, TlsKey

if TYPE_CHECKING:
    from intaglio_client.watch import Published, Unchanged

__all__ = ["rollback_app", "watch_app"]

watch_app = typer.Typer(name="watch", add_completion=False)
rollback_app = typer.Typer(name="rollback", add_completion=False)

Config = Annotated[
    Path, typer.Argument(help="Deployment YAML with swap, built with `intaglio build`.", show_default=False)
]


@watch_app.command()
def watch(  # noqa: PLR0913  (one option a choice)
    config: Config,
    *,
    lora: Annotated[
        list[str] | None, typer.Option(help="ID=FOLDER instead of the registry's checkpoints; repeatable.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar=URL_VARIABLE,
            help="host:port of the server's gRPC; by default a server of this build that you run here.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the samples show; by default the trigger words.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    samples: Annotated[Path, typer.Option(help="Folder for the pictures of before and after.")] = Path(
        "out/watch"
    ),
    keep: Annotated[
        int, typer.Option(min=2, help="Versions kept of each LoRA, the one served among them.")
    ] = 5,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="End after the first file: with 0 where it is served, else with 1."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Follow checkpoints folders until Ctrl-C. Each new LoRA file is checked, swapped into the running
    server, and shown before and after.

    With --json every file is one line of JSON.
    """
    from intaglio_client.generate.connection import tls_from_options
    from intaglio_client.watch import Publisher, follow, followed_folders, store_of
    from intaglio_client.watch_samples import Samples

    tls = tls_from_options(ca=tls_ca, certificate=tls_cert, key=tls_key)
    deployment = load_deployment(config)
    folders = followed_folders(deployment, dict(_pair(text) for text in lora or []))
    store, layers = store_of(deployment)
    printed = Output(json=json, quiet=quiet)
    refusals: list[IntaglioError] = []

    def refused(error: IntaglioError) -> None:
        refusals.append(error)
        printed.problem(f"refused  {error}")
        if json:
            printed.event({"state": "refused", "error": str(error)})

    followed = ", ".join(f"{name} in {os.path.relpath(folder)}" for name, folder in folders.items())
    waiting = f"following {followed}; Ctrl-C stops it"
    with printed.progress.status(escape(waiting)) as status:
        publisher = Publisher(
            store,
            layers,
            Samples(samples, prompt, seed, tls),
            url,
            keep,
            report=lambda text: status.update(escape(text)),
        )
        try:
            for published in follow(publisher, folders, interval=interval, refused=refused):
                status.update(escape(waiting))
                if published is not None:
                    printed.result(_line(published), data=_values(published))
                if once and (published is not None or refusals):
                    raise typer.Exit(FAILED if refusals else 0)
        except KeyboardInterrupt:
            printed.note("stopped")


def _values(done: Published | Unchanged) -> dict[str, Any]:
    """What became of a file, for programs."""
    from intaglio_client.watch import Unchanged

    state = "unchanged" if isinstance(done, Unchanged) else "served"
    return {"state": state, **asdict(done)}


def _line(done: Published | Unchanged) -> str:
    """What became of a file, for people."""
    from intaglio.loras.versions import shown_version
    from intaglio_client.watch import Unchanged

    if isinstance(done, Unchanged):
        return f"unchanged {done.lora}: {done.source} is served already"
    said = [] if done.note is None else [done.note]
    if done.samples is not None:
        said.append(f"before and after: {done.samples}")
    version = f"{done.lora} {shown_version(done.sha256)} from {done.source}"
    return f"served   {version} after {done.seconds:.1f} s; {'; '.join(said)}"


def _pair(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise InvalidRequest("lora", repr(text), allowed="ID=FOLDER")
    return name, Path(folder)


@rollback_app.command()
def rollback(
    config: Config,
    lora: Annotated[str, typer.Argument(help="Id in the registry.", show_default=False)],
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve the previous version of a LoRA and reject the current one; a running server does so from its next
    request on.
    """
    from intaglio.loras.versions import shown_version
    from intaglio_client.watch import store_of

    store, _ = store_of(load_deployment(config))
    current = store.roll_back(lora).loras[lora]
    earlier = len(current.versions) - 1
    versions = "version" if earlier == 1 else "versions"
    rejected = shown_version(current.rejected[-1])
    again = f"intaglio loras serve {lora} --version {rejected} --config {config}"
    Output(json=json, quiet=quiet).result(
        f"{lora}: {shown_version(current.sha256)} is served; {earlier} earlier {versions} kept",
        f"{rejected} is rejected: no build and no watch serves it until you ask for it with {again}",
        data={"id": lora, "served": current.sha256, "rejected": current.rejected[-1], "kept": earlier},
    )
