"""`intaglio poses list|show|add|check`: the pose library that a deployment names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.yaml_files import REGISTRY_ID
from intaglio.detectors.annotate import Annotator
from intaglio.detectors.opening import choose_detector
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.imaging.openpose import draw_pose, pose_document
from intaglio.imaging.png import png_from_pixels
from intaglio.imaging.pose_library import MIRRORED, NamedPose, PoseLibrary, pose_files
from intaglio.poses.documents import document_from_json, write_pose
from intaglio.poses.sheet import contact_sheet
from intaglio.whole_files import write_whole

__all__ = ["app"]

app = typer.Typer(name="poses", no_args_is_help=True, add_completion=False, help="The pose library.")

_DEFAULT: Final = Path("configs/miniature.yaml")
Config = Annotated[Path, typer.Option(help="Deployment whose folder of poses is used.")]
Name = Annotated[str, typer.Argument(help="Name of a pose; NAME-mirrored is its mirror image.")]


@app.command("list")
def list_(
    *,
    search: Annotated[
        str, typer.Option(help="Only poses whose name or tags contain each of these words.")
    ] = "",
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a PNG that shows every pose with its name.")
    ] = None,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the poses with their tags. A damaged file is named and does not stop the others.

    With --quiet only the names are printed, one a line.
    """
    printed = Output(json=json, quiet=quiet)
    folder, _ = _folder_of(config)
    poses, problems = _read(folder)
    for problem in problems.values():
        printed.problem(f"intaglio poses: {problem}")
    words = search.lower().split()
    poses = [pose for pose in poses if _matches(pose, words)]
    if sheet is not None:
        if not poses:
            raise InvalidRequest("search", f"no pose matches {search!r}", allowed="words of names and tags")
        write_whole(sheet, png_from_pixels(contact_sheet(poses), text={}))
    rows = [(pose.name, str(len(pose.keypoints)), ", ".join(pose.tags)) for pose in poses]
    data = {"poses": [_values(pose) for pose in poses], "refused": problems, "sheet": sheet}
    table = table_of(rows, header=("name", "people", "tags"))
    printed.result(table, data=data, brief="\n".join(pose.name for pose in poses))


def _matches(pose: NamedPose, words: list[str]) -> bool:
    texts = [pose.name, *(tag.lower() for tag in pose.tags)]
    return all(any(word in text for text in texts) for word in words)


@app.command()
def show(
    name: Name,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also draw it as a control map, into this PNG file.")
    ] = None,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print what the library says of one pose. With --quiet only its file is printed."""
    folder, _ = _folder_of(config)
    pose = PoseLibrary(folder).read(name)
    if out is not None:
        width, height = (max(1, round(side)) for side in pose.canvas)
        write_whole(out, png_from_pixels(draw_pose(pose.keypoints, width=width, height=height), text={}))
    values = {**_values(pose), "map": out}
    rows = [(key, _shown(value)) for key, value in values.items() if value is not None]
    Output(json=json, quiet=quiet).result(table_of(rows), data=values, brief=str(pose.file))


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command()
def add(  # noqa: PLR0913  (one option a parameter)
    source: Annotated[
        Path, typer.Argument(help="A photograph, or OpenPose keypoints as JSON.", show_default=False)
    ],
    *,
    name: Annotated[str, typer.Option(help="Name of the new pose.", show_default=False)],
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by; repeatable.")] = None,
    canvas: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Width and height of the picture, for JSON that does not say them."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a pose of that name.")] = False,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a pose to the library. Of a photograph, the deployment's pose detector reads the people.

    A server of the deployment's build serves a new pose from its next request on. Of a pose that the build
    has, the build's copy counts until the next build. With --quiet only the file
    is printed.
    """
    folder, deployment = _folder_of(config)
    if not re.match(REGISTRY_ID, f"{name}{MIRRORED}"):
        allowed = "at most 55 lower-case letters, digits, _ and -; the first is a letter or a digit"
        raise InvalidRequest("name", repr(name), allowed=allowed)
    if canvas is not None and min(canvas) < 1:
        raise InvalidRequest("canvas", f"{canvas[0]} {canvas[1]}", allowed="two positive numbers")
    if source.suffix.lower() == ".json":
        document = document_from_json(source, canvas=canvas)
    else:
        document = _detected(source, deployment)
    write_pose(folder, name, document, tags=tag or (), replace=replace)
    pose = PoseLibrary(folder).read(name)
    people = len(pose.keypoints)
    counted = "1 person" if people == 1 else f"{people} people"
    done = f"{name}: {counted}, {pose.file} is written; {name}{MIRRORED} is its mirror image"
    if _is_built(name, deployment):
        done += f"\nA server of {deployment.build_folder} serves its own copy until the next build."
    Output(json=json, quiet=quiet).result(done, data=_values(pose), brief=str(pose.file))


def _is_built(name: str, deployment: Deployment) -> bool:
    """Whether the build that lies on this machine holds a pose of that name."""
    return any(deployment.build_folder.glob(f"poses/*/{name}.json"))


def _detected(photo: Path, deployment: Deployment) -> dict[str, Any]:
    """The document of the people in a photograph."""
    chosen = choose_detector("pose", deployment.detectors)
    annotate = Annotator(chosen, None, most_pixels=deployment.limits.input_pixels)
    detection = annotate(photo.read_bytes(), name=str(photo)).detection
    if detection.people is None:
        right = "name one of kind movenet or dwpose, or openpose of controlnet-aux"
        raise ConfigError(f"detectors.{chosen.name}: it finds no people; {right}")
    height, width = detection.map.shape[:2]
    return pose_document(detection.people, width=width, height=height)


@app.command()
def check(*, config: Config = _DEFAULT, json: Json = False, quiet: Quiet = False) -> None:
    """Check every file of the library. The exit code is 1 where one is refused.

    With --quiet only what is refused is printed.
    """
    folder, _ = _folder_of(config)
    poses, problems = _read(folder)
    found = [{"name": name, "state": "refused", "detail": text} for name, text in problems.items()]
    for pose in poses:
        found += [{"name": pose.name, "state": "warning", "detail": text} for text in _warnings(pose)]
    named = {path.name for path in pose_files(folder)}
    for path in sorted(folder.glob("*.json")):
        if path.name not in named:
            detail = f"{path.name}: not served, since its name is no id (lower-case letters, digits, _ and -)"
            found.append({"name": path.stem, "state": "warning", "detail": detail})
    rows = [("ok", f"{len(poses)} poses in {folder}"), *((one["state"], one["detail"]) for one in found)]
    brief = "\n".join(f"refused  {text}" for text in problems.values())
    data = {"poses": len(poses), "found": found, "refused": len(problems)}
    Output(json=json, quiet=quiet).result(table_of(rows), data=data, brief=brief)
    raise typer.Exit(FAILED if problems else 0)


def _warnings(pose: NamedPose) -> Iterator[str]:
    seen = pose.keypoints[..., 2] > 0
    if not seen.any():
        yield f"pose {pose.name}: no keypoint is seen, so its map is black"
        return
    points = pose.keypoints[seen][:, :2]
    outside = int(((points < 0) | (points > 1)).any(axis=1).sum())
    if outside:
        yield f"pose {pose.name}: {outside} of {int(seen.sum())} keypoints lie outside its canvas"


def _read(folder: Path) -> tuple[list[NamedPose], dict[str, str]]:
    """Every pose of the library that can be read, and what is wrong with the others, by name."""
    library = PoseLibrary(folder)
    poses: list[NamedPose] = []
    problems: dict[str, str] = {}
    for name in library.names():
        try:
            poses.append(library.read(name))
        except ConfigError as error:
            problems[name] = str(error)
    return poses, problems


def _values(pose: NamedPose) -> dict[str, Any]:
    """What `--json` says of a pose."""
    return {
        "name": pose.name,
        "file": pose.file,
        "people": len(pose.keypoints),
        "width": pose.canvas[0],
        "height": pose.canvas[1],
        "tags": list(pose.tags),
    }


def _folder_of(config: Path) -> tuple[Path, Deployment]:
    if config == _DEFAULT and not config.is_file():
        raise ConfigError(f"{config}: no such file; name your deployment's YAML file with --config FILE")
    deployment = load_deployment(config)
    if deployment.poses is None:
        raise ConfigError(f"{config}: has no pose library; add poses: FOLDER")
    if not deployment.poses.is_dir():
        raise ConfigError(f"poses: {deployment.poses}: no such folder; correct `poses`, or make the folder")
    return deployment.poses, deployment
