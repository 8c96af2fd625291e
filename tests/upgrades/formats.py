"""The shape of every format that intaglio stores. `python -m tests.upgrades.formats` writes `formats.json`.

A shape is a flat table: the place of a value in the file -> its type. It says which files can be read. A new
value that may be left out changes nothing for files of before; every other change does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.presets import Presets
from intaglio.faces.enrolled import EnrolledCharacter
from intaglio.loras.sets import ServedLoras
from intaglio_client.batch.manifest import _Line
from intaglio_client.batch.spec import BatchSpec
from intaglio_export.plan.records import StageRecord

__all__ = ["FORMATS", "RECORDED", "broken", "shape_of", "version_of"]

RECORDED: Final = Path(__file__).with_name("formats.json")
FORMATS: Final[Mapping[str, type[BaseModel]]] = {
    "manifest.json": BuildManifest,
    "loras/registry.json": ServedLoras,
    "presets.json": Presets,
    "record.json": StageRecord,
    "characters/NAME.json": EnrolledCharacter,
    "batch.json": BatchSpec,
    "manifest.jsonl": _Line,
}
_FIELD: Final = "schema_version"
Shape = dict[str, str]


def version_of(model: type[BaseModel]) -> int:
    """The version that the code of a format writes; 1 where a model has none, which its writer adds."""
    field = model.model_fields.get(_FIELD)
    return 1 if field is None else int(field.default)


def shape_of(model: type[BaseModel]) -> Shape:
    """Place -> type, with `!` where a file must have it."""
    schema = model.model_json_schema(mode="validation")
    return dict(_places(schema, schema.get("$defs", {}), "", ()))


def _places(
    schema: Mapping[str, Any], known: Mapping[str, Any], place: str, above: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Every place below `place`. A definition inside itself ends there."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in above:
            yield from _places(known[name], known, place, (*above, name))
        return
    required = set(schema.get("required", ()))
    for name, one in schema.get("properties", {}).items():
        inside = f"{place}.{name}".lstrip(".")
        yield inside, _type(one, known) + ("!" if name in required else "")
        yield from _places(one, known, inside, above)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _places(schema[key], known, f"{place}[]", above)
    for key in ("anyOf", "oneOf"):
        for one in schema.get(key, ()):
            yield from _places(one, known, place, above)


def _type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _type(known[schema["$ref"].rpartition("/")[2]], known)
    choices = [one for key in ("anyOf", "oneOf") for one in schema.get(key, ())]
    if choices:
        return "|".join(sorted({_type(one, known) for one in choices}))
    if "enum" in schema:
        return "|".join(sorted(json.dumps(one) for one in schema["enum"]))
    if "const" in schema and schema.get("title") != "Schema Version":
        return json.dumps(schema["const"])
    return str(schema.get("type", "any"))


def broken(before: Shape, now: Shape) -> list[str]:
    """What files of the shape `before` may have that the code of `now` does not take as it was."""
    found = [f"{place} is gone" for place in sorted(before.keys() - now.keys())]
    for place in sorted(before.keys() & now.keys()):
        lost = set(before[place].rstrip("!").split("|")) - set(now[place].rstrip("!").split("|"))
        if lost and now[place].rstrip("!") != "any":
            found.append(f"{place} no longer takes {', '.join(sorted(lost))}")
        if now[place].endswith("!") and not before[place].endswith("!"):
            found.append(f"{place} must be there now")
    new = sorted(place for place in now.keys() - before.keys() if now[place].endswith("!"))
    # What a new optional value needs inside itself is of no concern to a file without it.
    return found + [
        f"{place} must be there, and was not" for place in new if _parent(place) in before | {"": ""}
    ]


def _parent(place: str) -> str:
    return place.removesuffix("[]").rpartition(".")[0].removesuffix("[]")


def recorded() -> dict[str, Any]:
    """What `formats.json` has to say."""
    shape: Callable[[type[BaseModel]], Shape] = shape_of
    return {name: {"version": version_of(kind), "shape": shape(kind)} for name, kind in FORMATS.items()}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(recorded(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
