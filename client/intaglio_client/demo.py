"""`intaglio demo`: build, serve, generate and stop once, and print where the time went."""

# ruff: noqa: PLC0415  (what is not installed must be named before anything is imported that needs it)

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio.errors import BuildError, ConfigError, IntaglioError, InvalidRequest, MissingExtra
from intaglio.extras import MODULES, missing_modules
from intaglio.init import Example, write_example
from intaglio.serving.installation import find_triton

__all__ = ["POSE", "PROMPT", "app", "check_extras"]

app = typer.Typer(name="demo", add_completion=False)

PROMPT: Final = "mara in a yellow shirt and red trousers waving hello on a beach"
POSE: Final = "waving-03-mirrored"
SEED: Final = 7
CONFIG: Final = Path("configs/miniature.yaml")
FOLDER: Final = Path("miniature-demo")
"""What `--miniature` writes into, in the working directory."""


@app.command()
def demo(  # noqa: PLR0913  (one option a choice)
    config: Annotated[Path, typer.Argument(help="Deployment YAML.")] = CONFIG,
    *,
    miniature: Annotated[
        Path | None,
        typer.Option(
            help="The folder miniature/ of intaglio's repository: its weights are in no wheel. What the demo "
            f"builds goes to {FOLDER}/.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("out/demo.png"),
    prompt: Annotated[str, typer.Option(help="What to draw.")] = PROMPT,
    pose: Annotated[str, typer.Option(help="A pose of the library.")] = POSE,
    seed: Annotated[int, typer.Option(help="Another seed, another picture.")] = SEED,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build, serve on free ports, generate one image and stop; print where the time went.

    With --quiet only the path of the picture is printed.
    """
    check_extras()
    config = _config_of(config, miniature)
    from intaglio_client.demonstration import Stopwatch, demo_loras, request_times, run_demo

    printed = Output(json=json, quiet=quiet)
    watch = Stopwatch()
    deployment = load_deployment(config)
    with watch.step("build"):
        _build(config, quiet=json or quiet)
    image, memory = run_demo(deployment, watch, prompt=prompt, pose=pose, seed=seed)
    image.save(out)
    loras = [lora.id for lora in demo_loras(deployment)]
    drawn = f"{prompt!r}, pose {pose}, LoRA {', '.join(loras) or 'none'}, seed {image.seed} → {out}"
    shares = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.items())
    resident = f"server memory: {sum(memory.values()) / 2**30:.2f} GiB resident ({shares})"
    parts = request_times(image)
    data = {
        "picture": out,
        "prompt": prompt,
        "pose": pose,
        "loras": loras,
        "seed": image.seed,
        "seconds": watch.seconds,
        "request_seconds": parts,
        "memory_bytes": memory,
    }
    table = _time_table(watch.seconds, parts)
    printed.result(f"\n{drawn}\n", table, f"\n{resident}", data=data, brief=str(out))


def _config_of(config: Path, miniature: Path | None) -> Path:
    """The deployment to demonstrate: `config`, or one that is written beside the weights in `miniature`.

    Raises:
        InvalidRequest: both are given, or `miniature` is not that folder.
        ConfigError: nothing is given, and the default is not there.
    """
    if miniature is None:
        if config == CONFIG and not config.exists():
            raise ConfigError(
                f"{config}: no such file here; only intaglio's repository has it. Name its weights "
                "(intaglio demo --miniature REPOSITORY/miniature), or a deployment of yours"
            )
        return config
    if config != CONFIG:
        raise InvalidRequest("miniature", f"beside {config}", allowed="one of the two")
    if not (miniature / "model" / "unet").is_dir():
        allowed = "the folder miniature/ of intaglio's repository"
        raise InvalidRequest("miniature", f"{miniature} has no model/unet", allowed=allowed)
    link, deployment = FOLDER / "miniature", FOLDER / CONFIG.name
    if not deployment.exists():
        write_example(FOLDER, Example.MINIATURE)
    if not link.exists():
        link.unlink(missing_ok=True)  # it led to a folder that is gone
        link.symlink_to(miniature.resolve(), target_is_directory=True)
    return deployment


def check_extras() -> None:
    """Check that everything is installed that the demo needs.

    Raises:
        IntaglioError: modules or `tritonserver` are missing; it names all the extras to install.
        ConfigError: `tritonserver` is missing, and no extra brings one for this machine.
    """
    missing = {extra: missing_modules(extra) for extra in MODULES}
    try:
        find_triton()
    except MissingExtra as absent:
        missing[absent.extra] = [absent.module]
    needed = [extra for extra, modules in missing.items() if modules]
    if needed:
        modules = ", ".join(module for extra in needed for module in missing[extra])
        raise IntaglioError(f"without {modules}; run: pip install 'intaglio[{','.join(needed)}]'")


def _build(config: Path, *, quiet: bool) -> None:
    words = [sys.executable, "-m", "intaglio", "build", str(config)]
    output = subprocess.DEVNULL if quiet else None
    if quiet:
        words.append("--quiet")
    if subprocess.run(words, check=False, stdout=output).returncode:
        raise BuildError(f"intaglio build {config} failed; its reason is above")


def _time_table(seconds: Mapping[str, float], parts: Mapping[str, float]) -> Table:
    rows = []
    for name, value in seconds.items():
        rows.append((name, f"{value:.2f} s"))
        if name == "generate":
            rows += [(f"  {label}", f"{part:.3f} s") for label, part in parts.items()]
    rows.append(("total", f"{sum(seconds.values()):.2f} s"))
    return table_of(rows, right=(1,))
