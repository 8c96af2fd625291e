"""What the options that change the image do to the miniature's figures, and what they save.

    python -m benchmarks.options configs/miniature.yaml --out benchmarks/results/miniature_options.json
Held-out scenes with their pose as control are drawn in process through all three stages, with the steps,
guidance and seeds of `miniature.evaluate`, and judged by its rules: each scene with no option and with each
of `benchmarks.speed.engines.OPTIONS`. The pictures of a scene follow one another, so other work on the
machine slows all of them alike. Each option is compared with no option scene by scene: differences and their
standard errors are of pairs. What is judged is kept scene by scene. The same command goes on where a run was
stopped, and a run for more scenes goes on from fewer. Markdown is written beside the JSON.
"""

from __future__ import annotations

import functools
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from benchmarks.measuring.case import Case
from benchmarks.measuring.figures import Results, commit_of, table_lines
from benchmarks.measuring.pictures import png_from_pixels
from benchmarks.measuring.results import describe_machine, read_part, write_part
from benchmarks.measuring.timing import Stopwatch, spread
from benchmarks.speed.engines import OPTIONS, Stages, run_image
from intaglio.builds.manifest import BuildManifest, write_json
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio.whole_files import write_whole
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.commands.progress import reporter_for
from miniature.architecture import IMAGE_SIZE
from miniature.judging import FIGURES, judge_picture
from miniature.painter import GUIDANCE, STEPS
from miniature.painter import Case as HeldOut
from miniature.painter import cases as held_out_cases
from miniature.world import control_map

__all__ = [
    "NO_OPTION",
    "SETTINGS",
    "SceneCase",
    "gather",
    "markdown_of",
    "measure",
    "scene_case",
    "summary_of",
    "write_results",
]

NO_OPTION: Final = "no option"
SETTINGS: Final[Mapping[str, Mapping[str, float]]] = {NO_OPTION: {}, **OPTIONS}
_HEADINGS: Final = ("option", "seconds", "ratio", "attire as asked", "place as asked", "PCK@0.1")
_PART: Final = "judged"
_WIDTH: Final = 160
Row = dict[str, float]
"""Seconds of one picture and what the rules say of it."""
Rows = Mapping[str, Row]
"""A scene's rows by option."""


@functools.cache
def _scenes(count: int) -> list[HeldOut]:
    return held_out_cases(count)


@functools.cache
def _drawn_pose(count: int, image: int) -> bytes:
    judged = _scenes(count)[image]
    return png_from_pixels(control_map(judged.scene, judged.rendered, "pose"))


@dataclass(frozen=True)
class SceneCase(Case):
    """Image i is held-out scene i: its prompt, its pose as the control, seed i.

    There is no negative prompt: its embeddings are then zeros, as in diffusers.
    """

    negative_prompt: str | None = None
    seed: int = 0

    def scene(self, image: int) -> HeldOut:
        """Scene, rendering and prompt of image `image`."""
        return _scenes(self.images)[image]

    def prompt_of(self, image: int) -> str:
        """The prompt that names all that is judged."""
        return self.scene(image).prompt

    def control_image(self, image: int) -> bytes:
        """The scene's own pose, drawn, as PNG."""
        return _drawn_pose(self.images, image)


def scene_case(config: Path, *, images: int, steps: int = STEPS) -> SceneCase:
    """The case of a deployment of the miniature.

    Raises:
        ConfigError: it fuses LoRAs, or has no ControlNet of poses or not the size of the scenes.
    """
    deployment = load_deployment(config)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    control = next((name for name, net in deployment.controlnets.items() if net.type == "pose"), None)
    if deployment.fuse or control is None or size not in deployment.profiles.sizes:
        raise ConfigError(
            f"{config}: cannot be judged by scenes: "
            f"wants no fuse, a ControlNet of type pose, and [{size[0]}, {size[1]}] in sizes"
        )
    return SceneCase(
        str(config.resolve()),
        *size,
        steps=steps,
        guidance_scale=GUIDANCE,
        images=images,
        control=control,
    )


def make_row(case: SceneCase, image: int, stages: Stages, settings: Mapping[str, float]) -> Row:
    """One picture with one option, timed to the last byte of its PNG, and judged."""
    watch = Stopwatch()
    with watch.lap("seconds"):
        png = run_image(case, image, stages, Stopwatch(), **settings)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return {"seconds": watch.laps["seconds"][0]} | judge_picture(picture, case.scene(image))


def _without_cache(manifest: BuildManifest) -> BuildManifest:
    """The first option of a scene would encode its prompt for all the others."""
    execution = manifest.execution.model_copy(update={"embedding_cache": 0})
    return manifest.model_copy(update={"execution": execution})


def _in_turn(image: int) -> list[str]:
    """The options, beginning with another one at every scene: the first has the control to decode."""
    names = list(SETTINGS)
    first = image % len(names)
    return names[first:] + names[:first]


def measure(case: SceneCase, manifest: BuildManifest, work: Path, progress: Progress) -> list[Rows]:
    """Rows of every scene, those of earlier runs of the same build and case among them."""
    of: dict[str, Any] = {name: value for name, value in asdict(case).items() if name != "images"}
    of |= {"build": manifest.key, "settings": SETTINGS}
    kept = read_part(work, _PART) or {}
    rows: list[Rows] = kept["rows"] if kept.get("of") == of else []
    each = len(SETTINGS)
    done = min(len(rows), case.images)
    bar = progress.add_task("pictures", total=case.images * each, completed=done * each)
    if done == case.images:
        return rows[:done]
    folder = case.deployment.build_folder
    with Preprocess(manifest, folder) as preprocess, Diffuse(_without_cache(manifest), folder) as diffuse:
        stages = (preprocess, diffuse)
        # Not measured: the buffers of each kind of pass are made when it first comes.
        for settings in SETTINGS.values():
            run_image(case, done, stages, Stopwatch(), **settings)
        for image in range(done, case.images):
            case.control_image(image)  # drawn now: a client's drawing is not the engines' time
            row = {}
            for name in _in_turn(image):
                row[name] = make_row(case, image, stages, SETTINGS[name])
                progress.advance(bar)
            rows.append(row)
            write_part(work, _PART, {"of": of, "rows": rows})
    return rows


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean, its standard error, and of how many."""
    return {
        "mean": statistics.fmean(values),
        "error": statistics.stdev(values) / len(values) ** 0.5,
        "n": len(values),
    }


def summary_of(rows: Sequence[Rows], option: str) -> dict[str, Any]:
    """Seconds and figures of an option, and how they compare with no option.

    Comparisons are of the two pictures of a scene. The ratio of seconds is a median: a picture that other
    work slowed is an outlier, not noise about a mean.
    """
    own = [row[option] for row in rows]
    pairs = [(row[option], row[NO_OPTION]) for row in rows]
    figures = {}
    for name in FIGURES:
        difference = mean_and_error([one[name] - other[name] for one, other in pairs])
        figures[name] = mean_and_error([one[name] for one in own]) | {"difference": difference}
    return {
        "seconds": spread([one["seconds"] for one in own]),
        "ratio": spread([one["seconds"] / other["seconds"] for one, other in pairs]),
        "figures": figures,
    }


def gather(
    case: SceneCase,
    manifest: BuildManifest,
    rows: Sequence[Rows],
    *,
    machine: Mapping[str, Any],
    note: str = "",
) -> dict[str, Any]:
    """The results file."""
    return {
        "schema": 1,
        "note": note,
        "machine": dict(machine),
        "case": asdict(case) | {"config": Path(case.config).name, "prompt": "that of the scene"},
        "engines": {
            "runtime": manifest.runtime,
            "target": manifest.target,
            "precision": manifest.precision,
            "build": manifest.key,
        },
        "options": [
            {"option": name, "settings": settings} | summary_of(rows, name)
            for name, settings in SETTINGS.items()
        ],
    }


def _figure(found: Mapping[str, Any], *, compared: bool) -> str:
    if not compared:
        return f"{found['mean']:.3f} ± {found['error']:.3f}"
    return f"{found['mean']:.3f} ({found['difference']['mean']:+.3f} ± {found['difference']['error']:.3f})"


def _cells(results: Results) -> Iterator[tuple[str, ...]]:
    for found in results["options"]:
        compared = found["option"] != NO_OPTION
        seconds = f"{found['seconds']['median']:.2f}"
        ratio = f"{found['ratio']['median']:.2f}"
        figures = [_figure(found["figures"][name], compared=compared) for name in FIGURES]
        yield found["option"], seconds, ratio, *figures


def markdown_of(results: Results) -> str:
    """The results as a page."""
    machine, case, engines = results["machine"], results["case"], results["engines"]
    build = f"{engines['runtime']} {engines['target']} {engines['precision']}"
    cores = f"{machine['processor']}, {machine['cores']} of its cores"
    drawn = (
        f"{case['width']}x{case['height']}, {case['steps']} Euler steps, guidance {case['guidance_scale']:g}"
    )
    lines = [
        f"# Options that change the image: {case['images']} scenes, {case['config']}",
        "",
        f"{build}, {cores}, {commit_of(machine)}.",
        ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items())),
        "",
        f"Held-out scenes with their pose as control, {drawn}, judged by the rules of "
        "`miniature/evaluate.py`. In brackets the difference to no option, scene by scene; ± is one standard "
        "error. Seconds and ratios are medians, ratios of a scene's own two pictures.",
    ]
    if results["note"]:
        lines += ["", results["note"]]
    lines += table_lines(f"| {' | '.join(_HEADINGS)} |", _cells(results))
    return "\n".join(lines) + "\n"


def write_results(out: Path, results: Results) -> None:
    """The file, and its page beside it."""
    write_json(out, dict(results))
    write_whole(out.with_suffix(".md"), markdown_of(results).encode())


def show(console: Console, results: Results) -> None:
    """Print the table."""
    table = Table(*_HEADINGS, box=None, padding=(0, 2))
    for cells in _cells(results):
        table.add_row(*cells)
    console.print(table)


def main(
    config: Path,
    out: Annotated[Path, typer.Option(help="Results file to write.")],
    work: Annotated[Path, typer.Option(help="What is judged so far; a second run goes on from it.")] = Path(
        "build/options-benchmark"
    ),
    images: Annotated[int, typer.Option(min=2, help="Scenes; each is one picture an option.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps.")] = STEPS,
    note: Annotated[
        str, typer.Option(help="What else the machine did meanwhile; goes into the results.")
    ] = "",
) -> None:
    """Build what is not built, measure, print the table."""
    case = scene_case(config, images=images, steps=steps)
    machine = describe_machine()
    with reporter_for(Console(stderr=True)) as reporter:
        manifest = build_deployment(config, BuildOptions(), reporter=reporter).manifest
    work.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows = measure(case, manifest, work, progress)
    results = gather(case, manifest, rows, machine=machine, note=note)
    write_results(out, results)
    show(Console(highlight=False, width=_WIDTH), results)


if __name__ == "__main__":
    typer.run(main)
