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

from intaglio.command_output import Json, Output, Quiet, json_line
from intaglio.contract.config import load_deployment
from intaglio.contract.server import checked_host
from intaglio.errors import IntaglioError, InvalidRequest, Unavailable
from intaglio.exit_codes import FAILED, LATER, exit_code_of
from intaglio.serving.console import StatusLine, lasting_console, lasting_output
from intaglio.serving.control import ask_to_reload, controlled_servers
from intaglio.serving.endpoints import configured_endpoints
from intaglio.serving.log_file import LOG_MIB
from intaglio.serving.production import hardened
from intaglio.serving.server import Server
from intaglio.serving.server_tls import tls_of_options
from intaglio.serving.triton_server import Restarts
from intaglio.telemetry.event_log import line_of, now_text

__all__ = ["app", "reload_app"]

app = typer.Typer(name="serve", add_completion=False)
reload_app = typer.Typer(name="reload", add_completion=False)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Instead of the configuration's; 0 picks a free one.")
]
HttpHost = Annotated[
    str | None, typer.Option(help="Address of HTTP; by default --host, in production the loopback.")
]
MetricsHost = Annotated[
    str | None, typer.Option(help="Address of the metrics; by default --host, in production the loopback.")
]
Production = Annotated[
    bool,
    typer.Option(
        "--production",
        help="Serve only gRPC clients with a certificate; HTTP is for this machine's health checks. Needs "
        "--tls-cert, --tls-key, --tls-ca and a Triton without published weaknesses.",
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="Encrypt gRPC: the server's certificate (PEM).")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="The private key of --tls-cert.")]
TlsCa = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="Serve only clients whose certificate one of these (PEM) has signed."),
]


@app.command()
def serve(  # noqa: PLR0913  (one option a choice)
    config: Annotated[
        Path, typer.Argument(help="Deployment YAML, built with `intaglio build`.", show_default=False)
    ],
    triton: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRITON_OPTIONS",
            help="Options of tritonserver after --, such as --log-verbose=1 or --trace-config=rate=100.",
            show_default=False,
        ),
    ] = None,
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on instead of the configuration's.")
    ] = None,
    http_port: Port = None,
    grpc_port: Port = None,
    metrics_port: Port = None,
    http_host: HttpHost = None,
    metrics_host: MetricsHost = None,
    production: Production = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help=f"Triton's log, at most {2 * LOG_MIB} MiB with its `.1`; by default triton.log in the build "
            "folder."
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="Most restarts of a failed Triton within ten minutes.")
    ] = 5,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run Triton on a build until Ctrl-C. A Triton that dies is restarted. `intaglio reload` switches to a
    new build.

    SIGTERM and the hang-up of the terminal stop it like Ctrl-C: new requests are refused, and those that run
    or wait are finished, for at most `server.drain_seconds` of the configuration. A second signal ends them.
    Started with `nohup`, it goes on after a hang-up.

    Options of tritonserver follow after --. Those that would undo a rule of security are refused by name.

    Ends with 0 when told to stop, and with 1 when Triton cannot start or keeps failing.
    """
    deployment = load_deployment(config)
    configured = configured_endpoints(deployment.server)
    at = replace(
        configured,
        host=configured.host if host is None else _host("host", host),
        http_port=_given(http_port, configured.http_port),
        grpc_port=_given(grpc_port, configured.grpc_port),
        metrics_port=_given(metrics_port, configured.metrics_port),
        http_host=None if http_host is None else _host("http-host", http_host),
        metrics_host=None if metrics_host is None else _host("metrics-host", metrics_host),
        tls=tls_of_options(certificate=tls_cert, key=tls_key, ca=tls_ca),
    )
    if production:
        at = hardened(at)
    console = lasting_console(sys.stderr, quiet=quiet)
    seconds = deployment.server.drain_seconds
    try:
        with StatusLine(console, log_format=deployment.server.log_format) as status:
            server = Server(deployment, endpoints=at, log=log, options=triton or (), report=status.show)
            with _stop_on_signals(server), server:
                if not server.stopping:
                    _print_addresses(server, json=json, quiet=quiet)
                    server.supervise(Restarts(most=restarts))
                    status.show(f"stopping; what runs may take {seconds} s, a second signal ends it")
                    server.drain()
            status.show("stopped")
    except Unavailable as error:  # the same start would not do better later
        Output().problem(f"intaglio serve: {error}")
        raise typer.Exit(FAILED) from error


def _host(option: str, host: str) -> str:
    try:
        return checked_host(host)
    except ValueError as error:
        problem, _, allowed = str(error).partition("; allowed: ")
        raise InvalidRequest(option, problem, allowed=allowed) from error


def _print_addresses(server: Server, *, json: bool, quiet: bool) -> None:
    """Say on stdout where the server is reached. Its reader may have left: the server goes on."""
    data = {
        "grpc": server.grpc_url,
        "http": f"http://{server.http_url}",
        "metrics": f"http://{server.metrics_url}/metrics",
        "memory": server.memory_report,
        "log": server.log,
    }
    lines = [f"{name:<9}{value}" for name, value in data.items()]
    text = "\n".join([*lines, "Ctrl-C stops it"])
    if json:
        text = json_line(data)
    elif server.deployment.server.log_format == "json":
        event = {"time": now_text(), "level": "info", "stage": "serve", "event": "serving"}
        text = line_of({**event, **data}).decode().rstrip()
    if json or not quiet:
        print(text, file=lasting_output(sys.stdout), flush=True)


@reload_app.command()
def reload(
    config: Annotated[
        Path,
        typer.Argument(help="Deployment YAML that `intaglio serve` runs and `intaglio build` built again."),
    ],
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Switch the running `intaglio serve CONFIG` to what was built since. There is no restart, no request
    fails, and no image is made by both builds.

    The new engines are loaded beside the old ones, so the card's memory must hold both. Where it cannot, the
    command prints both sizes and changes nothing. After any failure the old build is served. Several
    servers of CONFIG are all asked. Ends with 1 where one of them refused, and with 75 where no server of
    CONFIG runs here or one is just starting or reloading.
    """
    deployment = load_deployment(config)
    servers = controlled_servers(deployment.build_folder)
    if not servers:
        raise Unavailable(
            f"no server of {deployment.build_folder} runs on this machine as this user with this TMPDIR; "
            f"start one: intaglio serve {config}"
        )
    printed = Output(json=json, quiet=quiet)
    codes = []
    with printed.progress.status("asking the server") as status:
        for server in servers:
            which = "" if len(servers) == 1 else f"{server.folder.name}: "
            answer = {"server": server.folder.name, "grpc": server.grpc_url}
            try:
                done = ask_to_reload(server.folder, report=status.update)
            except IntaglioError as error:
                printed.problem(f"intaglio reload: {which}{error}")
                codes.append(exit_code_of(error))
                if json:
                    printed.event({**answer, "error": str(error)})
            else:
                printed.result(f"{which}{done}", data={**answer, "done": done})
    if codes:
        raise typer.Exit(FAILED if FAILED in codes else LATER)


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
