"""`intaglio doctor`: what this machine has, what is missing, and which command fixes it.

It needs only the base installation, and it does not import the packages that it looks for.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import IntaglioError, single_line
from intaglio.serving.findings import CHECKS, Finding, State

__all__ = ["app", "examine", "examine_config"]

app = typer.Typer(
    name="doctor", add_completion=False, help="What this machine has, what is missing, what fixes it."
)

_MARKS: Final = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
_EXTRAS: Final = {
    "client": ("tritonclient", "grpc", "google.protobuf"),
    "serve": ("onnxruntime", "psutil", "cv2", "tokenizers"),
    "export": ("torch", "diffusers", "transformers", "onnx", "safetensors"),
}
"""Modules that the demo imports, by extra."""
_TENSORRT: Final = ("tensorrt_rtx", "tensorrt")
_CUDA: Final = "cuda.bindings"
_DEMO: Final = Path("configs/miniature.yaml")
_PYTHONS: Final = ((3, 11), (3, 13))
_SHM_MIB: Final = 256
_DISK_GIB: Final = 2
_MEMORY_GIB: Final = 4


@app.command()
def doctor(
    config: Annotated[
        Path, typer.Argument(help="Deployment whose sources, build and ports are looked at.")
    ] = _DEMO,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Print only the memory that the deployment will take; ends with 1 where it does not fit.",
        ),
    ] = False,
) -> None:
    """Say what this machine has, what is missing and which command fixes it.

    Ends with 1 where something is missing.
    """
    if memory:
        raise typer.Exit(_memory(config, Console(highlight=False, soft_wrap=True)))
    findings = [*examine(), *examine_config(config)]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")  # a path must be readable as a whole
    for finding in findings:
        table.add_row(_MARKS[finding.state], escape(finding.what), escape(finding.detail))
        if finding.fix:
            table.add_row("", "", f"[bold]→ {escape(finding.fix)}[/]")
    console = Console(highlight=False)
    console.print(table)
    raise typer.Exit(_conclude(findings, config, console))


def _conclude(findings: Sequence[Finding], config: Path, console: Console) -> int:
    """Say what to do next; 1 where something is missing."""
    missing = [finding for finding in findings if finding.state == "missing"]
    if not missing:
        can = (
            "the demo can run: make demo"
            if config == _DEMO
            else f"nothing is missing: intaglio build {config}"
        )
        console.print(escape(can), soft_wrap=True)
        return 0
    console.print("missing:")
    for finding in missing:
        fix = f" → {finding.fix}" if finding.fix else ""
        console.print(escape(f"  {finding.what}: {finding.detail}{fix}"), soft_wrap=True)
    return 1


def examine() -> Iterator[Finding]:
    """The machine and what is installed."""
    yield _python()
    yield from _gpu()
    for extra, modules in _EXTRAS.items():
        yield _extra(extra, modules)
    yield _triton()
    yield from _room()


def examine_config(path: Path) -> Iterator[Finding]:
    """One deployment: its file, its sources, its build, its ports."""
    try:
        deployment = load_deployment(path)
    except IntaglioError as error:
        yield Finding("config", "missing", str(error))
        return
    yield Finding("config", "ok", str(path))
    for check in entry_points(group=CHECKS):
        try:
            yield from check.load()(deployment, path)
        except ModuleNotFoundError as error:
            detail = f"not all looked at without {error.name}"
            yield Finding(check.name, "missing", detail, "pip install 'intaglio[export]'")
    yield _build(deployment, path)
    yield from _ports(deployment)


def _python() -> Finding:
    low, high = _PYTHONS
    detail = f"Python {sys.version.split()[0]} at {sys.prefix}"
    if low <= sys.version_info[:2] <= high:
        return Finding("python", "ok", detail)
    first, last = (".".join(map(str, version)) for version in (low, high))
    fix = f"python{first} -m venv .venv  (any of {first} to {last})"
    return Finding("python", "missing", detail, fix)


def _gpu() -> Iterator[Finding]:
    query = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,compute_cap,driver_version",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except FileNotFoundError:
        yield Finding("gpu", "note", "none (no nvidia-smi): ONNX Runtime runs the miniature on the CPU")
        return
    except (subprocess.SubprocessError, OSError) as error:
        problem = f"nvidia-smi fails: {single_line(str(error))}"
        yield Finding("gpu", "note", problem, "install the NVIDIA driver, or unset CUDA devices")
        return
    for line in done.stdout.strip().splitlines():
        yield Finding("gpu", "ok", f"{line} (name, memory, compute capability, driver)")
    found = [name for name in _TENSORRT if find_spec(name)]
    fix = "pip install 'intaglio[tensorrt]'"
    if not found:
        yield Finding("tensorrt", "note", "not installed: the GPU stays unused", fix)
    elif not _is_installed(_CUDA):
        detail = f"{_versions_of(found)}, without cuda-python, which builds and servers on a card need"
        yield Finding("tensorrt", "missing", detail, fix)
    else:
        yield Finding("tensorrt", "ok", _versions_of((*found, _CUDA)))


def _extra(extra: str, modules: tuple[str, ...]) -> Finding:
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        fix = f"pip install 'intaglio[{extra}]'"
        return Finding(f"extra {extra}", "missing", f"without {', '.join(missing)}", fix)
    return Finding(f"extra {extra}", "ok", _versions_of(modules))


def _triton() -> Finding:
    from intaglio.serving.installation import find_triton  # noqa: PLC0415  (a module that a broken installation may lack)

    try:
        found = find_triton()
        found.check()
    except IntaglioError as error:
        what, _, fix = str(error).partition("; ")
        return Finding("tritonserver", "missing", what, fix.removeprefix("run: "))
    note = ""
    if found.origin != "PATH":
        numpy = _version_of("numpy")
        note = f", numpy {numpy}: for this machine's loopback, production uses an NGC image"
    return Finding("tritonserver", "ok", f"{found.binary} (from {found.origin}{note})")


def _room() -> Iterator[Finding]:
    shm = shutil.disk_usage("/dev/shm").free // 2**20 if Path("/dev/shm").is_dir() else 0
    detail = f"{shm} MiB free, {_SHM_MIB} needed"
    if shm >= _SHM_MIB:
        yield Finding("/dev/shm", "ok", detail)
    else:
        fix = "docker run --shm-size=1g, or a memory-backed emptyDir at /dev/shm in Kubernetes"
        yield Finding("/dev/shm", "missing", detail, fix)
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    detail = f"{disk:.0f} GiB free"
    if disk >= _DISK_GIB:
        yield Finding("disk", "ok", detail)
    else:
        yield Finding("disk", "missing", detail, f"free {_DISK_GIB} GiB here")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    state: State = "ok" if memory >= _MEMORY_GIB else "note"
    yield Finding("memory", state, f"{memory:.0f} GiB, {len(os.sched_getaffinity(0))} CPU cores")


def _memory(path: Path, console: Console) -> int:
    """Print the prediction; 1 where it does not fit."""
    from intaglio.serving.memory import predict_memory  # noqa: PLC0415  (the other report does without)
    from intaglio.serving.memory_limits import check_memory, remedies  # noqa: PLC0415  (the other report does without)

    deployment = load_deployment(path)
    try:
        manifest = read_manifest(deployment.build_folder)
    except IntaglioError:
        manifest = None
    prediction = predict_memory(deployment, manifest)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column()
    table.columns[1].justify = "right"
    for part in prediction.parts:
        table.add_row(part.name, f"{part.bytes / 2**20:.0f} MiB", part.source)
    table.add_row(
        f"[bold]{prediction.place}[/]",
        f"[bold]{prediction.bytes / 2**30:.2f} GiB[/]",
        "" if manifest else "not built: an estimate",
    )
    console.print(table)
    for remedy in remedies(deployment, manifest):
        console.print(f"{remedy.change}: {remedy.bytes / 2**30:.2f} GiB")
    try:
        check_memory(deployment, manifest)
    except IntaglioError as error:
        console.print(f"does not fit: {error}", style="red")
        return 1
    return 0


def _build(deployment: Deployment, path: Path) -> Finding:
    try:
        from intaglio.serving.build_check import check_build  # noqa: PLC0415  (needs the serve extra)

        manifest = check_build(deployment)
    except ModuleNotFoundError as error:
        return Finding("build", "note", f"not looked at without {error.name}")
    except IntaglioError as error:
        reason, _, command = str(error).partition("; rebuild with: ")
        return Finding("build", "note", reason, command or f"intaglio build {path}")
    platform = f"{manifest.runtime} {manifest.target}, {manifest.precision}"
    networks = ", ".join(manifest.networks)
    return Finding("build", "ok", f"{deployment.build_folder}: {platform}: {networks}")


def _ports(deployment: Deployment) -> Iterator[Finding]:
    server = deployment.server
    ports = {"http": server.http_port, "grpc": server.grpc_port, "metrics": server.metrics_port}
    for name, port in ports.items():
        yield _port(name, server.host, port)


def _port(name: str, host: str, port: int) -> Finding:
    what = f"{name} port"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            problem = f"{host}:{port}: {error.strerror} (the demo takes free ones)"
            return Finding(what, "note", problem, f"intaglio serve --{name}-port 0 ...")
    return Finding(what, "ok", f"{host}:{port} is free" if port else f"any free one of {host}")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


_DISTRIBUTIONS: Final[dict[str, str]] = {
    "cuda.bindings": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "tensorrt_rtx": "tensorrt-rtx-cu12",
}


def _version_of(module: str) -> str:
    try:
        return version(_DISTRIBUTIONS.get(module, module))
    except PackageNotFoundError:
        return ""


def _versions_of(modules: Iterable[str]) -> str:
    return ", ".join(f"{name} {_version_of(name)}".strip() for name in modules)
