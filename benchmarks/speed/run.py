"""diffusers eager, diffusers + torch.compile, intaglio's engines, intaglio over gRPC: one run, one card, the
same seeds and steps.

    python -m benchmarks.speed.run configs/sdxl-seeded.yaml --out benchmarks/results/h200.json
The first size is compared; then all of them are built, served and soaked. Every part is a process of its own
and is written as soon as it is done: a run that is cut short, or given `--seconds`, is taken up again by the
same command. Markdown and a chart are written beside the JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console

from benchmarks.measuring.ballast import ballast
from benchmarks.measuring.case import Case, load_case, psnr, write_case_configs
from benchmarks.measuring.results import describe_machine, read_part, write_part
from benchmarks.speed.report import chart_of, markdown_of
from intaglio.builds.manifest import write_json
from intaglio.engines.card import PeakWatch, read_card_memory
from intaglio.errors import ConfigError

ROOT: Final = Path(__file__).resolve().parents[2]
_GRACE_SECONDS: Final = 15.0
_CASE: Final = "case.json"
_EVERY_SIZE: Final = "case_every_size.json"
STAND_IN: Final = "for debugging: ONNX Runtime on a CPU, no card; none of this is a result"


@dataclass(frozen=True, slots=True)
class Part:
    """One contender or test."""

    name: str
    arguments: tuple[str, ...]
    ballast: bool = False
    """Whether it must do with the memory of a small card."""
    every_size: bool = False
    """Whether it is given all sizes of the configuration; else the first only."""
    least_seconds: float = 30.0
    """It is not begun with less left."""


PARTS: Final = (
    Part("build", ("benchmarks.speed.building",), ballast=True, least_seconds=120),
    Part("served", ("benchmarks.speed.served",), ballast=True, least_seconds=60),
    Part("engines", ("benchmarks.speed.engines",), least_seconds=45),
    Part("eager", ("benchmarks.speed.eager",), least_seconds=45),
    Part("compiled", ("benchmarks.speed.eager", "--compile"), least_seconds=150),
    Part("build_sizes", ("benchmarks.speed.building", "--part", "build_sizes"), ballast=True, every_size=True, least_seconds=240),
    Part("served_sizes", ("benchmarks.speed.served", "--part", "served_sizes"), ballast=True, every_size=True, least_seconds=120),
    Part("soak", ("benchmarks.speed.soak",), every_size=True, least_seconds=90),
    Part("variants", ("benchmarks.speed.variants",), least_seconds=150),
)  # fmt: skip


def run_part(
    part: Part, case_file: Path, work: Path, *, seconds: float, extra: Sequence[str]
) -> dict[str, Any]:
    """Run one part for at most `seconds`; what it wrote, with how it ended."""
    started = time.perf_counter()
    module, *options = part.arguments
    command = [sys.executable, "-m", module, str(case_file), str(work), *options, *extra]
    log = work / f"{part.name}.log"
    with log.open("w", encoding="utf-8") as file, PeakWatch() as peak:
        code = _run_for(command, seconds, file)
    values = read_part(work, part.name) or {}
    if code != 0:
        values["failed"] = (
            f"{'cut off' if code is None else f'exit {code}'} after {time.perf_counter() - started:.0f} s: {_last_lines(log)}"
        )
    values["wall_seconds"] = round(time.perf_counter() - started, 1)
    values.setdefault("card_peak_mib", None if peak.taken is None else peak.taken >> 20)
    write_part(work, part.name, values)
    return values


def _run_for(command: Sequence[str], seconds: float, log: IO[str]) -> int | None:
    """Exit code; None where the time was up: the part is then asked to end, so that its server ends with it."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None


def _last_lines(log: Path) -> str:
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return " / ".join(lines[-4:])[-600:]


def agreement(work: Path, case: Case) -> dict[str, list[float]]:
    """PSNR of every contender's images to eager's."""
    found: dict[str, list[float]] = {}
    for name in ("compiled", "engines", "served", "served_sizes"):
        pairs = [
            (work / name / f"{image}.npy", work / "eager" / f"{image}.npy") for image in range(case.images)
        ]
        values = [
            psnr(np.load(ours), np.load(theirs))
            for ours, theirs in pairs
            if ours.is_file() and theirs.is_file()
        ]
        if values:
            found[name] = [round(value, 2) for value in values]
    return found


def gather(work: Path, case: Case, machine: Mapping[str, Any], *, note: str = "") -> dict[str, Any]:
    """The results file; `note` is what a reader must know beside the figures."""
    parts = {part.name: values for part in PARTS if (values := read_part(work, part.name)) is not None}
    return {
        "schema": 1,
        "stand_in": None if read_card_memory() is not None else STAND_IN,
        "note": note,
        "machine": dict(machine),
        "case": asdict(case) | {"config": Path(case.config).name},
        "parts": parts,
        "psnr": agreement(work, case),
    }


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """JSON, Markdown and chart."""
    write_json(out, results)
    out.with_suffix(".md").write_text(markdown_of(results), encoding="utf-8")
    out.with_suffix(".svg").write_text(chart_of(results), encoding="utf-8")


def wanted_parts(table: Sequence[Part], names: str) -> list[Part]:
    """The parts of `table` that `names` lists with commas, in the table's order; "all" for all."""
    known = [part.name for part in table]
    asked = known if names == "all" else names.split(",")
    if unknown := sorted(set(asked) - set(known)):
        raise ConfigError(f"parts: {', '.join(unknown)} is unknown; parts are {', '.join(known)}")
    return [part for part in table if part.name in asked]


def due_parts(
    parts: Sequence[Part], work: Path, *, ends: float, again: bool, console: Console
) -> Iterator[tuple[Part, float]]:
    """Those that are not done and for which there is time until `ends` (monotonic), each with the seconds
    left; says why not others.

    A part that its run did not live to see end has no `wall_seconds` yet.
    """
    for part in parts:
        left, there = ends - time.monotonic(), read_part(work, part.name) or {}
        if "wall_seconds" in there and "failed" not in there and not again:
            console.print(f"{part.name}: done before")
        elif left < part.least_seconds:
            console.print(f"{part.name}: {left:.0f} s left, not begun")
        else:
            yield part, left


def _extra(part: Part, *, each: int, soak: int, left: float) -> list[str]:
    if part.name == "served_sizes":
        return ["--each", str(each)]
    return ["--images", str(soak), "--seconds", str(max(left - 20, 10))] if part.name == "soak" else []


def main(  # noqa: PLR0913, PLR0917  (each is one option)
    config: Path,
    out: Annotated[Path, typer.Option(help="Results file to write; a second run adds to it.")],
    work: Annotated[Path, typer.Option(help="Images and logs of the parts.")] = Path("build/benchmark"),
    parts: Annotated[str, typer.Option(help="Parts in a list with commas, or all.")] = "all",
    again: Annotated[bool, typer.Option("--again", help="Also the parts that are done.")] = False,
    steps: Annotated[int, typer.Option(help="Euler steps.")] = 30,
    images: Annotated[int, typer.Option(help="Images measured for each contender.")] = 5,
    each: Annotated[int, typer.Option(help="Images of every size in the part served_sizes.")] = 10,
    soak: Annotated[int, typer.Option(help="Images of the soak.")] = 300,
    free_gib: Annotated[
        float, typer.Option(help="What a ballast leaves free for build and server; 0 for no ballast.")
    ] = 15.5,
    seconds: Annotated[
        float, typer.Option(help="Time for everything; a part that does not fit waits for the next run.")
    ] = 1e9,
    note: Annotated[
        str, typer.Option(help="What else the machine did meanwhile; goes into the results.")
    ] = "",
) -> None:
    """Measure; ends with 1 where a part failed."""
    ends, console = time.monotonic() + seconds, Console(highlight=False, soft_wrap=True)
    whole = load_case(config, steps=steps, images=images)
    for name, path in zip((_CASE, _EVERY_SIZE), write_case_configs(config, work / "configs"), strict=True):
        replace(whole, config=str(path)).write(work / name)
    machine = describe_machine(ROOT)
    failed = False
    for part, left in due_parts(wanted_parts(PARTS, parts), work, ends=ends, again=again, console=console):
        with ballast(free_gib if part.ballast and free_gib else None) as free:
            console.print(
                f"{part.name}: begins, {left:.0f} s left"
                + ("" if free is None else f", {free:.2f} GiB of the card free")
            )
            case_file = work / (_EVERY_SIZE if part.every_size else _CASE)
            values = run_part(
                part, case_file, work, seconds=left, extra=_extra(part, each=each, soak=soak, left=left)
            )
        failed |= "failed" in values
        console.print(
            f"{part.name}: {values.get('failed', 'done')}, {values['wall_seconds']:.0f} s", markup=False
        )
        write_results(out, gather(work, whole, machine, note=note))
    write_results(out, gather(work, whole, machine, note=note))
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
