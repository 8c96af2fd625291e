"""`intaglio doctor`: what this machine has, what is missing, and which command fixes it.

It needs only the base installation, and it does not import the packages that it looks for.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Final

import typer

from intaglio.builds.manifest import read_manifest
from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import check_gpu
from intaglio.errors import IntaglioError, single_line
from intaglio.exit_codes import FAILED
from intaglio.extras import DISTRIBUTIONS, MODULES, is_installed, missing_modules
from intaglio.serving.findings import CARD_CHECKS, CHECKS, Finding, State

__all__ = ["app", "examine", "examine_card", "examine_config"]

app = typer.Typer(name="doctor", add_completion=False)

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
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Only measure the card with small engines (20 s), and project an image of the deployment.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what this machine has, what is missing and which command fixes it.

    Ends with 1 where something is missing. With --quiet only what is missing is printed.
    """
    printed = Output(json=json, quiet=quiet)
    if memory:
        raise typer.Exit(_memory(config, printed))
    findings = list(examine_card(config)) if card else [*examine(), *examine_config(config)]
    missing = [_missing_line(finding) for finding in findings if finding.state == "missing"]
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.state, finding.what, finding.detail))
        if finding.fix:
            rows.append(("", "", f"→ {finding.fix}"))
    end = "\n  ".join(["missing:", *missing]) if missing else ""
    if not missing and not card:  # which looks at nothing but the card
        end = _next_step(config)
    data = {"findings": [asdict(finding) for finding in findings], "missing": len(missing)}
    printed.result(table_of(rows), end, data=data, brief="\n".join(missing))
    raise typer.Exit(FAILED if missing else 0)


def _missing_line(finding: Finding) -> str:
    fix = f" → {finding.fix}" if finding.fix else ""
    return f"{finding.what}: {finding.detail}{fix}"


def _next_step(config: Path) -> str:
    if config == _DEMO:
        return "the demo can run: make demo"
    return f"nothing is missing: intaglio build {config}"


def examine() -> Iterator[Finding]:
    """The machine and what is installed."""
    yield _python()
    yield from _gpu()
    for extra in MODULES:
        yield _extra(extra)
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
    yield from _chosen_gpu(deployment)
    yield from _checked(CHECKS, deployment, path)
    yield _build(deployment, path)
    yield from _ports(deployment)


def examine_card(path: Path) -> Iterator[Finding]:
    """The card, measured."""
    try:
        deployment = load_deployment(path)
    except IntaglioError as error:
        yield Finding("config", "missing", str(error))
        return
    yield from _checked(CARD_CHECKS, deployment, path)


def _checked(group: str, deployment: Deployment, path: Path) -> Iterator[Finding]:
    """What the entry points of `group` find."""
    for check in entry_points(group=group):
        try:
            yield from check.load()(deployment, path)
        except ModuleNotFoundError as error:
            detail = f"not all looked at without {error.name}"
            yield Finding(check.name, "missing", detail, "pip install 'intaglio[export]'")


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
    found = [name for name in _TENSORRT if is_installed(name)]
    fix = "pip install 'intaglio[tensorrt]'"
    if not found:
        yield Finding("tensorrt", "note", "not installed: the GPU stays unused", fix)
    elif not is_installed(_CUDA):
        detail = f"{_versions_of(found)}, without cuda-python, which builds and servers on a card need"
        yield Finding("tensorrt", "missing", detail, fix)
    else:
        yield Finding("tensorrt", "ok", _versions_of((*found, _CUDA)))


def _chosen_gpu(deployment: Deployment) -> Iterator[Finding]:
    """Cards that the deployment names, where the machine has cards but not those."""
    if deployment.runtime == "onnxruntime":
        return  # which runs on the CPU
    gpus = deployment.server.gpus
    named = [("execution.gpu", deployment.execution.gpu)]
    named += [] if gpus is None or gpus == "all" else [("server.gpus", gpu) for gpu in gpus]
    for field, gpu in named:
        try:
            check_gpu(gpu, field=field)
        except IntaglioError as error:
            what, _, fix = str(error).removeprefix(f"{field}: ").partition("; ")
            yield Finding(field, "missing", what, fix)


def _extra(extra: str) -> Finding:
    missing = missing_modules(extra)
    if missing:
        fix = f"pip install 'intaglio[{extra}]'"
        return Finding(f"extra {extra}", "missing", f"without {', '.join(missing)}", fix)
    return Finding(f"extra {extra}", "ok", _versions_of(MODULES[extra]))


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


def _memory(path: Path, printed: Output) -> int:
    """Print the prediction; the exit code."""
    from intaglio.serving.memory import predict_memory  # noqa: PLC0415  (the other report does without)
    from intaglio.serving.memory_limits import check_memory, remedies  # noqa: PLC0415  (the other report does without)

    deployment = load_deployment(path)
    try:
        manifest = read_manifest(deployment.build_folder)
    except IntaglioError:
        manifest = None
    prediction = predict_memory(deployment, manifest)
    rows = [(part.name, f"{part.bytes / 2**20:.0f} MiB", part.source) for part in prediction.parts]
    state = "" if manifest else "not built: an estimate"
    rows.append((prediction.place, f"{prediction.bytes / 2**30:.2f} GiB", state))
    changes = remedies(deployment, manifest)
    lines = [prediction.controlnets] if prediction.controlnets else []
    lines += [f"{remedy.change}: {remedy.bytes / 2**30:.2f} GiB" for remedy in changes]
    problem = ""
    try:
        check_memory(deployment, manifest)
    except IntaglioError as error:
        problem = f"does not fit: {error}"
        lines.append(problem)
    data = {
        "place": prediction.place,
        "bytes": prediction.bytes,
        "estimate": manifest is None,
        "controlnets": prediction.controlnets,
        "parts": [
            {"name": part.name, "bytes": part.bytes, "source": part.source} for part in prediction.parts
        ],
        "remedies": [{"change": remedy.change, "bytes": remedy.bytes} for remedy in changes],
        "problem": problem,
    }
    printed.result(table_of(rows, right=(1,)), *lines, data=data, brief=problem)
    return FAILED if problem else 0


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


def _version_of(module: str) -> str:
    name = module.partition(".")[0]
    try:
        return version(DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return ""


def _versions_of(modules: Iterable[str]) -> str:
    return ", ".join(f"{name} {_version_of(name)}".strip() for name in modules)
