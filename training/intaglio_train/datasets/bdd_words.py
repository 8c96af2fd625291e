"""The words for what a label file of BDD100K says: the fields of a caption's template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from intaglio_train.datasets.bdd import Scene

__all__ = ["FIELDS", "fields_of"]

FIELDS: Final[Mapping[str, str]] = {
    "weather": "the label's word: clear, partly cloudy, overcast, rainy, snowy, foggy",
    "scene": "the label's words: city street, highway, residential, parking lot, gas stations, tunnel",
    "timeofday": "the label's word: daytime, night, dawn/dusk",
    "place": "the scene as a place: a city street, a highway, a residential street, ...",
    "time": "the time of day as a phrase: by day, at night, at dawn or dusk",
    "objects": "what has a box, counted: 3 cars, a bus and 2 pedestrians",
}
"""What each field of a template holds. A field is undefined where the label says nothing, or `undefined`."""

_PLACES: Final[Mapping[str, str]] = {
    "residential": "a residential street",
    "gas stations": "a gas station",
}
"""Scenes that are not named `a SCENE`."""
_TIMES: Final[Mapping[str, str]] = {
    "daytime": "by day",
    "night": "at night",
    "dawn/dusk": "at dawn or dusk",
}
_OLDER: Final[Mapping[str, str]] = {"bike": "bicycle", "motor": "motorcycle", "person": "pedestrian"}
"""Categories of the older label files -> their names in the newer ones."""
_OBJECTS: Final[Mapping[str, tuple[str, str]]] = {
    "car": ("a car", "cars"),
    "truck": ("a truck", "trucks"),
    "bus": ("a bus", "buses"),
    "train": ("a train", "trains"),
    "trailer": ("a trailer", "trailers"),
    "motorcycle": ("a motorcycle", "motorcycles"),
    "bicycle": ("a bicycle", "bicycles"),
    "other vehicle": ("another vehicle", "other vehicles"),
    "rider": ("a rider", "riders"),
    "pedestrian": ("a pedestrian", "pedestrians"),
    "other person": ("another person", "other people"),
    "traffic light": ("a traffic light", "traffic lights"),
    "traffic sign": ("a traffic sign", "traffic signs"),
}
"""One and several of each category, in the order in which a caption names them."""


def fields_of(scene: Scene) -> dict[str, str]:
    """The fields that are defined for one picture."""
    found = dict(scene.attributes)
    if "scene" in found:
        found["place"] = _PLACES.get(found["scene"], _one(found["scene"]))
    if "timeofday" in found:
        found["time"] = _TIMES.get(found["timeofday"], found["timeofday"])
    if objects := _counted(scene.objects):
        found["objects"] = objects
    return found


def _counted(objects: Mapping[str, int]) -> str:
    """`3 cars, a bus and 2 pedestrians`; other categories follow the known ones, by name."""
    counts: Counter[str] = Counter()
    for category, count in objects.items():
        counts[_OLDER.get(category, category)] += count
    order = [*(name for name in _OBJECTS if name in counts), *sorted(set(counts) - set(_OBJECTS))]
    return _listed([_phrase(name, counts[name]) for name in order])


def _phrase(category: str, count: int) -> str:
    one, several = _OBJECTS.get(category, (_one(category), _several(category)))
    return one if count == 1 else f"{count} {several}"


def _one(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _several(noun: str) -> str:
    """The regular plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _listed(phrases: Sequence[str]) -> str:
    """`a, b and c`."""
    *others, last = phrases or [""]
    return f"{', '.join(others)} and {last}" if others else last
