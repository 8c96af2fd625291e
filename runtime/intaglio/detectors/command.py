"""`intaglio control`: photographs -> control maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import track

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.detectors.annotate import Annotator
from intaglio.detectors.cache import CACHE_FOLDER, DetectionCache
from intaglio.detectors.detection import Detection
from intaglio.detectors.opening import choose_detector
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.imaging.openpose import pose_document
from intaglio.imaging.png import png_from_pixels
from intaglio.whole_files import write_whole

__all__ = ["app", "photographs"]

app = typer.Typer(name="control", add_completion=False, help="Turn photographs into control maps.")

_DEFAULT: Final = Path("configs/miniature.yaml")
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class _Made:
    """What became of one photograph."""

    photo: Path
    map: Path
    detection: Detection | None
    detail: str

    @property
    def state(self) -> str:
        return "refused" if self.detection is None else "ok"


@app.command()
def control(
    photos: Annotated[
        list[Path], typer.Argument(help="Photographs, or folders of them.", show_default=False)
    ],
    *,
    kind: Annotated[
        str,
        typer.Option(
            "--type", help="Type of the maps, or id of a detector: canny, or what the deployment names."
        ),
    ] = "pose",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The map's PNG file; with several photographs a folder of maps.",
            show_default=False,
        ),
    ],
    config: Annotated[
        Path, typer.Option(help="Deployment that names the detectors under `detectors`.")
    ] = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make control maps of photographs.

    A photograph that was seen before is not detected again. One that is refused does not stop the others; the
    exit code is then 1. --json also prints the keypoints of people, as OpenPose's documents. With --quiet
    only the files of the maps are printed.
    """
    printed = Output(json=json, quiet=quiet)
    deployment = _deployment(config)
    found = photographs(photos)
    targets = _targets(photos, found, out)
    annotate = _annotator(deployment, kind)
    console = printed.progress
    pairs = list(zip(found, targets, strict=True))
    hidden = not console.is_terminal
    made = [
        _made(annotate, photo, target)
        for photo, target in track(pairs, kind, console=console, transient=True, disable=hidden)
    ]
    refused = [one for one in made if one.detection is None]
    for one in refused:
        printed.problem(f"intaglio control: {one.detail}")
    rows = [(one.state, str(one.map), one.detail) for one in made if one.detection is not None]
    brief = "\n".join(str(one.map) for one in made if one.detection is not None)
    printed.result(table_of(rows), data={"maps": [_values(one, kind) for one in made]}, brief=brief)
    raise typer.Exit(FAILED if refused else 0)


def photographs(given: Sequence[Path]) -> list[Path]:
    """Files as they are named, and in place of a folder the pictures in it.

    Raises:
        ConfigError: there is no such file, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder; name a photograph")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES)
        if not inside:
            raise ConfigError(f"{path}: holds no picture; allowed: files {', '.join(_SUFFIXES)}")
        found += inside
    return found


def _targets(given: Sequence[Path], found: Sequence[Path], out: Path) -> list[Path]:
    """The file of each map. One photograph's is `out`, unless that is a folder."""
    if len(given) == 1 and not given[0].is_dir() and not out.is_dir():
        if out.suffix.lower() != ".png":
            raise InvalidRequest("out", f"{str(out)!r}", allowed="a file NAME.png, or a folder that exists")
        return _beside(found, [out])
    if out.is_file() or out.suffix.lower() == ".png":
        raise InvalidRequest("out", f"{str(out)!r} for several maps", allowed="a folder")
    targets = [out / f"{photo.stem}.png" for photo in found]
    if twice := next(_repeated(targets), None):
        raise InvalidRequest("photos", f"two of them would become {twice}", allowed="names that differ")
    return _beside(found, targets)


def _beside(photos: Sequence[Path], targets: list[Path]) -> list[Path]:
    """`targets`. Raise InvalidRequest where a map would overwrite a photograph."""
    originals = {photo.resolve() for photo in photos}
    for target in targets:
        if target.resolve() in originals:
            allowed = "another folder or file name"
            raise InvalidRequest("out", f"{target} is one of the photographs", allowed=allowed)
    return targets


def _repeated(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            yield path
        seen.add(path)


def _deployment(config: Path) -> Deployment:
    if config == _DEFAULT and not config.is_file():
        raise ConfigError(f"{config}: no such file; name your deployment's YAML file with --config FILE")
    return load_deployment(config)


def _annotator(deployment: Deployment, kind: str) -> Annotator:
    chosen = choose_detector(kind, deployment.detectors)
    cache = DetectionCache(deployment.build / CACHE_FOLDER)
    return Annotator(chosen, cache, most_pixels=deployment.limits.input_pixels)


def _made(annotate: Annotator, photo: Path, target: Path) -> _Made:
    """Write the map of one photograph. A problem of the photograph becomes a line; others are raised."""
    try:
        data = photo.read_bytes()
        annotated = annotate(data, name=str(photo))
    except InvalidRequest as error:
        return _Made(photo, target, None, str(error))
    except OSError as error:
        if error.filename != str(photo):
            raise
        return _Made(photo, target, None, f"{photo}: {error.strerror}")
    write_whole(target, png_from_pixels(annotated.detection.map, text={}))
    return _Made(photo, target, annotated.detection, _detail(annotated.detection, cached=annotated.cached))


def _detail(detection: Detection, *, cached: bool) -> str:
    height, width = detection.map.shape[:2]
    parts = [f"{width}x{height}"]
    if detection.people is not None:
        count = len(detection.people)
        parts.append("1 person" if count == 1 else f"{count} people")
    if cached:
        parts.append("seen before")
    return ", ".join(parts)


def _values(made: _Made, kind: str) -> dict[str, Any]:
    """What `--json` says of one photograph."""
    values: dict[str, Any] = {"photo": made.photo, "type": kind}
    if made.detection is None:
        return {**values, "error": made.detail}
    height, width = made.detection.map.shape[:2]
    values |= {"map": made.map, "width": width, "height": height}
    if made.detection.people is not None:
        values["openpose"] = pose_document(made.detection.people, width=width, height=height)
    return values
