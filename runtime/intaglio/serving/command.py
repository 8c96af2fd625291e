"""`intaglio serve CONFIG` and `intaglio reload CONFIG`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from intaglio.contract.config import load_deployment
from intaglio.errors import IntaglioError, Unavailable
from intaglio.serving.console import StatusLine, lasting_console
from intaglio.serving.control import ask_to_reload, controlled_servers
from intaglio.serving.endpoints import configured_endpoints
from intaglio.serving.server import Server
from intaglio.serving.triton_server import Restarts

__all__ = ["app", "reload_app"]

app = typer.Typer(name="serve", add_completion=False, help="Run Triton on a build until Ctrl-C.")
reload_app = typer.Typer(name="reload", add_completion=False, help="Switch a running server to a new build.")

_GIVEN_UP = 1
_NOT_RELOADED = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Instead of the configuration's; 0 picks a free one.")
]


@app.command()
def serve(
    config: Annotated[
        Path, typer.Argument(help="Deployment YAML, built with `intaglio build`.", show_default=False)
    ],
    http_port: Port = None,
    grpc_port: Port = None,
    metrics_port: Port = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Triton's log, at most 32 MiB with its `.1`; by default triton.log in the build folder."
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="Most restarts of a failed Triton within ten minutes.")
    ] = 5,
) -> None:
    """Run Triton on a build until Ctrl-C. A Triton that dies is restarted. `intaglio reload` switches to a
    new build.

    SIGTERM and the hang-up of the terminal stop it like Ctrl-C: running requests are finished first. Started
    with `nohup`, it goes on after a hang-up.

    Ends with 0 when told to stop, 1 when Triton keeps failing, 2 when it cannot start.
    """
    deployment = load_deployment(config)
    configured = configured_endpoints(deployment.server)
    at = replace(
        configured,
        http_port=_given(http_port, configured.http_port),
        grpc_port=_given(grpc_port, configured.grpc_port),
        metrics_port=_given(metrics_port, configured.metrics_port),
    )
    console = lasting_console(sys.stdout)
    with StatusLine(console) as status:
        server = Server(deployment, endpoints=at, log=log, report=status.show)
        with _stop_on_signals(server), server:
            if not server.stopping:
                status.show("ready")
                console.print(
                    f"grpc     {server.grpc_url}\nhttp     http://{server.http_url}\nmetrics  http://{server.metrics_url}/metrics"
                )
                console.print(f"memory   {server.memory_report}\nlog      {server.log}\nCtrl-C stops it")
                try:
                    server.supervise(Restarts(most=restarts))
                except IntaglioError as error:
                    console.print(f"intaglio serve: {error}", style="red")
                    raise typer.Exit(_GIVEN_UP) from error
            status.show("stopping")
    console.print("stopped")


@reload_app.command()
def reload(
    config: Annotated[
        Path,
        typer.Argument(help="Deployment YAML that `intaglio serve` runs and `intaglio build` built again."),
    ],
) -> None:
    """Switch the running `intaglio serve CONFIG` to what was built since. There is no restart, no request
    fails, and no image is made by both builds.

    The new engines are loaded beside the old ones, so the card's memory must hold both. Where it cannot, the
    command prints both sizes and changes nothing. After any failure the old build is served. Ends with 2
    after a failure, where a server setting changed, which needs a restart, and where no server of CONFIG runs
    here. Several servers of CONFIG are all asked.
    """
    deployment = load_deployment(config)
    servers = controlled_servers(deployment.build_folder)
    if not servers:
        raise Unavailable(
            f"no server of {deployment.build_folder} runs on this machine as this user with this TMPDIR; "
            f"start one: intaglio serve {config}"
        )
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("asking the server") as status:
        failures = 0
        for server in servers:
            which = "" if len(servers) == 1 else f"{server.folder.name}: "
            try:
                console.print(f"{which}{ask_to_reload(server.folder, report=status.update)}", markup=False)
            except IntaglioError as error:
                errors.print(f"intaglio reload: {which}{error}", markup=False)
                failures += 1
    if failures:
        raise typer.Exit(_NOT_RELOADED)


def _given(port: int | None, configured: int) -> int:
    return configured if port is None else port


@contextlib.contextmanager
def _stop_on_signals(server: Server) -> Iterator[None]:
    """Stop `server` on a signal. The first signal lets running requests finish, the second one does not. A
    hang-up that was ignored when the command started stays ignored.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if server.stopping:
            server.kill()
        server.request_stop()

    heard = [number for number in _SIGNALS if not _is_kept_out(number)]
    before = [(number, signal.signal(number, handle)) for number in heard]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _is_kept_out(number: signal.Signals) -> bool:
    """Whether the command was started with hang-ups ignored, as `nohup` does."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
