"""The steps of a whole run: draw, measure, choose, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from intaglio.builds.manifest import BuildManifest, write_json
from intaglio.contract.config import Deployment
from intaglio.errors import ConfigError
from intaglio.exit_codes import TERMINATED
from intaglio.loras.sets import ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.progress import progress_for
from intaglio.stop_signals import stopped_by_signals
from intaglio.whole_files import write_whole
from intaglio_client.tune.chart import chart_of
from intaglio_client.tune.choice import presets_of
from intaglio_client.tune.costs import relative_costs
from intaglio_client.tune.distances import Pixels, psnr, ssim
from intaglio_client.tune.drawing import Drawing, draw_scenes, missing_weight
from intaglio_client.tune.grid import BASELINE, CONVERGED, Grid
from intaglio_client.tune.judges import Extractor, Judge
from intaglio_client.tune.kept import Kept
from intaglio_client.tune.pairs import paired_ratio
from intaglio_client.tune.presets_file import write_quality_part
from intaglio_client.tune.report import Results, data_of, page_of
from intaglio_client.tune.results import Row, SceneFigures, front, row_of
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.serving import Asked, served
from intaglio_client.tune.settings import Setting, named_setting
from intaglio_client.tune.sheet import sheet_of

__all__ = [
    "Built",
    "Measures",
    "Written",
    "draw_builds",
    "measure_rows",
    "results_of",
    "scene_figures",
    "served_loras",
    "settings_of",
    "write_results",
]

_SHEET_ROWS: Final = 5
_SHEET_COLUMNS: Final = 7


@dataclass(frozen=True)
class Built:
    """A deployment and its build."""

    deployment: Deployment
    manifest: BuildManifest

    @property
    def described(self) -> str:
        """`onnxruntime cpu fp32`."""
        return f"{self.manifest.runtime} {self.manifest.target} {self.manifest.precision}"


@dataclass(frozen=True)
class Measures:
    """What pictures are judged by, beside PSNR and SSIM."""

    judge: Judge | None = None
    extractor: Extractor | None = None


@dataclass(frozen=True)
class Written:
    """The files of a run."""

    presets: Path
    page: Path
    data: Path
    chart: Path
    sheet: Path


def settings_of(grid: Grid) -> tuple[Setting, ...]:
    """What the first build draws: the baseline first, and the reference last."""
    others = (one for one in grid.settings if one.name != BASELINE.name)
    return (BASELINE, *others, grid.reference)


def draw_builds(  # noqa: PLR0913  (what is drawn, by whom, where, and who is told)
    builds: Sequence[Built],
    scenes: Sequence[Scene],
    first: Sequence[Setting],
    others: Sequence[Setting],
    *,
    folder: Path,
    asked: Asked,
    console: Console,
) -> list[Drawing]:
    """Draw the settings `first` with the first build, and `others` with each other build. Both have the same
    baseline as their first. Returns what was drawn.

    `asked` is a server of the first build. The others get servers of their own, one after another.

    Raises: what `draw_scenes` and `served` do.
    """
    drawings = []
    for index, built in enumerate(builds):
        kept = Kept(folder / "pictures" / built.deployment.name, built.manifest.key, served_loras(built))
        settings = first if index == 0 else others
        drawing = Drawing(scenes, settings, kept, built.manifest)
        drawings.append(drawing)
        missing = missing_weight(drawing)
        if not missing:
            continue
        own = asked if index == 0 else Asked(deadline=asked.deadline)
        with (
            stopped_by_signals(code=TERMINATED),
            served(built.deployment, own, report=_reporter(console)) as client,
            progress_for(console, missing) as progress,
        ):
            draw_scenes(drawing, client, progress)
    return drawings


def served_loras(built: Built) -> ServedLoras:
    """What requests to the build may choose."""
    if built.manifest.swap == "off":
        return ServedLoras()
    return LoraStore(built.deployment.build_folder / LORAS_FOLDER).current()


def _reporter(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False)


def measure_rows(
    builds: Sequence[Built], drawings: Sequence[Drawing], reference: Setting, measures: Measures
) -> list[Row]:
    """The rows of all settings but the reference, where that is not the baseline itself. Those of other
    builds are listed apart. They were not drawn in turn with the first build, so their seconds are simply
    compared with its baseline's, scene by scene.
    """
    first = drawings[0]
    before_all, *rest = first.settings
    settings = [before_all, *(setting for setting in rest if setting.name != reference.name)]
    figures = {one.name: scene_figures(first, first, one, reference, measures) for one in settings}
    costs = relative_costs(_seconds(figures, before_all.name), before_all.name)
    baseline = figures[before_all.name]
    rows = [row_of(one, figures[one.name], baseline, ratio=costs[one.name]) for one in settings]
    before = [one.seconds for one in baseline]
    for built, drawing in zip(builds[1:], drawings[1:], strict=True):
        for setting in drawing.settings:
            found = scene_figures(first, drawing, setting, reference, measures)
            ratio = paired_ratio([one.seconds for one in found], before)
            rows.append(row_of(_of_build(built, setting), found, baseline, ratio=ratio))
    return rows


def _seconds(figures: Mapping[str, Sequence[SceneFigures]], baseline: str) -> list[dict[str, float]]:
    """Seconds by setting, one table for each scene and run: pictures of one run share their baseline's
    seconds.
    """
    tables: dict[tuple[int, float], dict[str, float]] = {}
    for name, scenes in figures.items():
        for index, one in enumerate(scenes):
            table = tables.setdefault((index, one.baseline_seconds), {baseline: one.baseline_seconds})
            table[name] = one.seconds
    return list(tables.values())


def _of_build(built: Built, setting: Setting) -> Setting:
    name = f"{built.deployment.name}: {setting.name}"
    return named_setting(setting.inputs, name=name, apart=f"build {built.described}")


def scene_figures(
    first: Drawing, drawing: Drawing, setting: Setting, reference: Setting, measures: Measures
) -> list[SceneFigures]:
    """One value a scene. PSNR and SSIM run in threads, where numpy works beside itself; a user's judge and an
    extractor need not be made for that.
    """

    def distances(scene: Scene) -> tuple[float, float]:
        found = drawing.kept.pixels(scene, setting)
        expected = first.kept.pixels(scene, reference)
        return psnr(found, expected), ssim(found, expected)

    with ThreadPoolExecutor() as pool:
        near = list(pool.map(distances, drawing.scenes))
    figures = []
    for scene, (decibels, similarity) in zip(drawing.scenes, near, strict=True):
        taken = drawing.kept.taken(scene, setting)
        if taken is None:
            path = drawing.kept.picture(scene, setting)
            raise ConfigError(f"{path}: changed while it was measured; run the same command again")
        found = drawing.kept.pixels(scene, setting)
        expected = first.kept.pixels(scene, reference)
        figures.append(
            SceneFigures(
                seconds=taken.seconds,
                baseline_seconds=taken.baseline,
                psnr=decibels,
                ssim=similarity,
                perceptual=measures.extractor.distance(found, expected) if measures.extractor else None,
                judged=measures.judge(scene.name, found) if measures.judge else {},
            )
        )
    return figures


def write_results(
    results: Results, drawing: Drawing, reference: Setting, folder: Path, presets: Path
) -> Written:
    """Write the page, the JSON, both PNGs and the presets."""
    written = Written(
        presets=presets,
        page=folder / "report.md",
        data=folder / "report.json",
        chart=folder / "front.png",
        sheet=folder / "sheet.png",
    )
    write_json(written.data, data_of(results))
    title = f"{results.deployment}, {results.build}: {results.scenes} scenes"
    write_whole(written.chart, chart_of(results.rows, results.presets, title=title))
    write_whole(written.sheet, _sheet(results, drawing, reference))
    write_whole(written.page, page_of(results).encode())
    write_quality_part(presets, results.presets)
    return written


def _sheet(results: Results, drawing: Drawing, reference: Setting) -> bytes:
    """The reference, 30 Euler steps, the presets, then others of the front and few-step LoRAs."""
    by_name = {row.setting.name: row for row in results.rows}
    presets = [(name, row.setting) for name, row in results.presets.items() if name != "ultra"]
    named = {setting.name: f"{name}: {setting.name}" for name, setting in presets}
    own = {setting.name for setting in drawing.settings}
    wanted = [
        by_name[BASELINE.name].setting,
        *(setting for _, setting in presets),
        *(row.setting for row in results.rows if "loras" in row.setting.inputs and row.setting.name in own),
        *(row.setting for row in front(results.rows)),
    ]
    shown = list({setting.name: setting for setting in wanted}.values())[: _SHEET_COLUMNS - 1]
    columns = [reference, *shown]
    titles = ["converged", *(named.get(setting.name, setting.name) for setting in shown)]
    rows: list[list[Pixels]] = [
        [drawing.kept.pixels(scene, setting) for setting in columns] for scene in drawing.scenes[:_SHEET_ROWS]
    ]
    return sheet_of(titles, rows)


def results_of(built: Built, scenes: Sequence[Scene], seed: int, grid: Grid, rows: Sequence[Row]) -> Results:
    """The rows with what was chosen from them."""
    own = [row for row in rows if not row.setting.apart]
    return Results(
        deployment=built.deployment.name,
        build=built.described,
        scenes=len(scenes),
        seed=seed,
        rows=rows,
        presets=presets_of(own),
        converged=next(row for row in own if row.setting.name == CONVERGED.name),
        reference_steps=int(grid.reference.inputs["steps"]),
        left_out=grid.left_out,
    )
