"""`intaglio characters enroll|list|show|check|forget`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import track

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.faces.enrolled import EnrolledCharacter, EnrolledFolder
from intaglio_client.characters.checking import Closeness, check_enrolled, closeness, read_all
from intaglio_client.characters.enrolling import Enroller, Photograph, identity_of
from intaglio_client.generate.characters import Character, load_characters

__all__ = ["app"]

app = typer.Typer(
    name="characters",
    no_args_is_help=True,
    add_completion=False,
    help="The faces of characters, which a server compares pictures with.",
)

_CONFIG: Final = Path("configs/miniature.yaml")
_REGISTRY: Final = Path("configs/characters.yaml")
Config = Annotated[Path, typer.Option(help="Deployment whose key `identity` says how faces are read.")]
Registry = Annotated[
    Path, typer.Option("--characters", help="Registry of characters: prompts, LoRAs, reference images.")
]
Name = Annotated[str, typer.Argument(help="Id of the character.", show_default=False)]


@app.command()
def enroll(  # noqa: PLR0913  (one option a parameter)
    name: Name,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photographs of one face each. Left out: the character's reference_images.",
            show_default=False,
        ),
    ] = None,
    *,
    threshold: Annotated[
        float | None,
        typer.Option(help="The character's own, in the deployment's measure. Left out: the registry's."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget the references that are enrolled.")
    ] = False,
    characters: Registry = _REGISTRY,
    config: Config = _CONFIG,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add photographs to the references of a character. They are read, not kept: what is written are
    embeddings, which only you may read.

    A photograph that is refused does not stop the others; the exit code is then 1. A server of the deployment
    compares with the new references from its next request on. With --quiet only refusals are printed.
    """
    printed = Output(json=json, quiet=quiet)
    known = _registered(characters).get(name)
    photographs = images or list(known.reference_images if known else ())
    if not photographs:
        allowed = f"photographs, or reference_images of {name} in {characters}"
        raise InvalidRequest("images", "none are given", allowed=allowed)
    if threshold is None and known is not None:
        threshold = known.threshold
    enroller = Enroller(load_deployment(config))
    console = printed.progress
    shown = track(photographs, name, console=console, transient=True, disable=not console.is_terminal)
    done = enroller(name, shown, threshold=threshold, replace=replace)
    refused = [one for one in done.photographs if one.state == "refused"]
    for one in refused:
        printed.problem(f"intaglio characters: {one.detail}")
    rows = [(one.state, str(one.path), one.detail) for one in done.photographs if one.state != "refused"]
    count = len(done.character.references) if done.character else 0
    printed.result(
        table_of(rows),
        f"{name}: {_counted(count)}",
        data={
            "name": name,
            "references": count,
            "photographs": [_photograph(one) for one in done.photographs],
        },
    )
    raise typer.Exit(FAILED if refused else 0)


@app.command("list")
def list_(
    *, characters: Registry = _REGISTRY, config: Config = _CONFIG, json: Json = False, quiet: Quiet = False
) -> None:
    """List the characters of the registry and those that are enrolled.

    With --quiet only the names of enrolled characters are printed, one a line.
    """
    printed = Output(json=json, quiet=quiet)
    registered = _registered(characters)
    enrolled, problems = read_all(identity_of(load_deployment(config)))
    for problem in problems:
        printed.problem(f"intaglio characters: {problem.detail}")
    names = sorted({*registered, *enrolled})
    entries = [_values(name, registered.get(name), enrolled.get(name)) for name in names]
    rows = [(one["name"], _counted(one["references"]), ", ".join(one["loras"])) for one in entries]
    table = table_of(rows, header=("name", "enrolled", "LoRAs"))
    refused = {problem.name: problem.detail for problem in problems}
    printed.result(table, data={"characters": entries, "refused": refused}, brief="\n".join(enrolled))


@app.command()
def show(
    name: Name,
    *,
    characters: Registry = _REGISTRY,
    config: Config = _CONFIG,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print what is known of a character: never an embedding. With --quiet only its file is printed."""
    setting = identity_of(load_deployment(config))
    folder = EnrolledFolder(setting.characters)
    registered = _registered(characters).get(name)
    enrolled = folder.read(name) if name in folder.names() else None
    if registered is None and enrolled is None:
        raise InvalidRequest("name", f"{name!r} is unknown", allowed="a name of `intaglio characters list`")
    values = _values(name, registered, enrolled)
    values["threshold"] = enrolled.threshold if enrolled else None
    values["file"] = folder.file(name) if enrolled else None
    values["photographs"] = [
        {"name": one.name, "sha256": one.sha256, "face": one.face}
        for one in (enrolled.references if enrolled else ())
    ]
    rows = [
        ("name", name),
        ("prompt", registered.prompt if registered else "not in the registry"),
        ("loras", ", ".join(values["loras"]) or "none"),
        ("threshold", _shown_threshold(values["threshold"], setting.threshold, setting.measure)),
        ("enrolled", _counted(values["references"])),
        *(("", f"{one['name']}, face of {one['face']:.0f} pixels") for one in values["photographs"]),
    ]
    brief = str(values["file"]) if enrolled else ""
    Output(json=json, quiet=quiet).result(table_of(rows), data=values, brief=brief)


@app.command()
def check(*, config: Config = _CONFIG, json: Json = False, quiet: Quiet = False) -> None:
    """Check every enrolled character: its file, how alike its references are, and whether another character
    would be taken for it. The exit code is 1 where a file is refused.

    With --quiet only what is refused is printed.
    """
    setting = identity_of(load_deployment(config))
    enrolled, problems = read_all(setting)
    found = [*problems, *check_enrolled(enrolled, setting)]
    rows = [("ok", f"{len(enrolled)} characters in {setting.characters}")]
    measured = [near for one in enrolled.values() if (near := closeness(one, setting)) is not None]
    rows += [("ok", _shown_closeness(one, setting.measure)) for one in measured]
    rows += [(one.state, one.detail) for one in found]
    data = {
        "characters": len(enrolled),
        "measured": [asdict(one) for one in measured],
        "found": [{"name": one.name, "state": one.state, "detail": one.detail} for one in found],
        "refused": len(problems),
    }
    brief = "\n".join(f"refused  {one.detail}" for one in problems)
    Output(json=json, quiet=quiet).result(table_of(rows), data=data, brief=brief)
    raise typer.Exit(FAILED if problems else 0)


@app.command()
def forget(
    name: Name,
    *,
    characters: Registry = _REGISTRY,
    config: Config = _CONFIG,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove the embeddings of a character. A server forgets it before its next request.

    Builds, caches and pictures hold no embedding. Scores in the manifests of batches stay, and so do the
    photographs and the registry, which you wrote yourself. With --quiet only the removed files are printed.
    """
    setting = identity_of(load_deployment(config))
    removed = EnrolledFolder(setting.characters).forget(name)
    if not removed:
        raise InvalidRequest(
            "name", f"{name!r} is not enrolled", allowed="a name of `intaglio characters list`"
        )
    lines = [f"{name}: forgotten; {removed[0]} is removed"]
    try:
        registered = _registered(characters).get(name)
    except ConfigError as error:  # such as a photograph that was removed first
        registered = None
        lines.append(f"What the registry still has of {name} is unknown: {error}")
    images = [str(path) for path in registered.reference_images] if registered else []
    if images:
        lines.append(f"{characters} still names {len(images)} reference images, which are yours to remove.")
    data = {"name": name, "removed": removed, "reference_images": images}
    Output(json=json, quiet=quiet).result("\n".join(lines), data=data, brief="\n".join(map(str, removed)))


def _registered(path: Path) -> dict[str, Character]:
    """The registry; without the default file there is none."""
    if path == _REGISTRY and not path.is_file():
        return {}
    return load_characters(path)


def _values(name: str, registered: Character | None, enrolled: EnrolledCharacter | None) -> dict[str, Any]:
    """What `--json` says of a character."""
    return {
        "name": name,
        "registered": registered is not None,
        "loras": list(registered.loras) if registered else [],
        "references": len(enrolled.references) if enrolled else 0,
    }


def _photograph(one: Photograph) -> dict[str, Any]:
    return {"file": one.path, "state": one.state, "detail": one.detail}


def _counted(references: int) -> str:
    if references == 0:
        return "not enrolled"
    return "1 reference" if references == 1 else f"{references} references"


def _shown_closeness(one: Closeness, measure: str) -> str:
    span = f"{measure} {one.nearest:.3f} to {one.farthest:.3f}"
    return f"{one.name}: {one.references} references, each to the others {span}"


def _shown_threshold(own: float | None, otherwise: float, measure: str) -> str:
    return f"{otherwise:g} ({measure}), the deployment's" if own is None else f"{own:g} ({measure})"
