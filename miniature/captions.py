"""Captions of scenes from a small grammar: synonyms, changing order, omissions."""

from __future__ import annotations

import numpy as np

from miniature import palette
from miniature.world import Scene

PEOPLE = ("a person", "an acrobat", "a figure", "someone", "a performer")
TOPS = ("shirt", "top", "sweater", "t-shirt")
BOTTOMS = ("trousers", "pants", "shorts", "leggings")
PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on a beach", "on the beach by the sea", "at the seaside"),
    "forest": ("in a forest", "in the woods", "among pine trees"),
    "street": ("in a city street", "in front of city buildings", "on a street downtown"),
    "night": ("under the night sky", "at night under the moon and stars", "outdoors at night"),
    "snow": ("in the snow", "in a snowy landscape", "on a snowy winter day"),
    "room": ("in a room", "indoors in a living room", "inside a cosy room"),
    "desert": ("in a desert", "among desert dunes", "in the hot desert"),
    "stage": ("on a stage", "on a theatre stage", "in front of red theatre curtains"),
    "meadow": ("in a flowering meadow",),
}
VERBS: dict[str, tuple[str, ...]] = {
    "standing": ("standing", "standing still", "posing"),
    "walking": ("walking", "strolling"),
    "running": ("running", "sprinting"),
    "dancing": ("dancing", "dancing happily"),
    "sitting": ("sitting", "sitting down"),
    "jumping": ("jumping", "leaping into the air"),
    "reaching": ("reaching out", "reaching"),
    "waving": ("waving", "waving hello"),
    "kicking": ("kicking", "doing a kick"),
    "bowing": ("bowing", "taking a bow"),
    "lunging": ("lunging", "doing a lunge"),
    "squatting": ("squatting", "crouching"),
    "stretching": ("stretching",),
    "cheering": ("cheering", "celebrating"),
    "boxing": ("boxing", "throwing a punch"),
    "balancing": ("balancing on one leg", "balancing"),
}
STYLES = ("", "", "", "a picture of ", "an illustration of ", "a drawing of ")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def attire_phrase(rng: np.random.Generator, scene: Scene, *, top: bool, bottom: bool) -> str:
    """Such as "a red shirt and blue trousers": either order, or one of the two."""
    pieces = []
    if top:
        colour = _pick(rng, palette.ATTIRE[scene.top].names)
        pieces.append(f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {_pick(rng, TOPS)}")
    if bottom:
        pieces.append(f"{_pick(rng, palette.ATTIRE[scene.bottom].names)} {_pick(rng, BOTTOMS)}")
    if rng.uniform() < 0.4:
        pieces.reverse()
    return " and ".join(pieces)


def caption(rng: np.random.Generator, scene: Scene, *, omit: float = 0.15) -> str:
    """One caption. Each attribute is left out with probability `omit`.

    With 0, everything that a picture can be held to is named.
    """
    say = {name: rng.uniform() >= omit for name in ("hair", "top", "bottom", "place", "verb")}
    say |= {"build": rng.uniform() < 0.25, "skin": rng.uniform() < 0.25}
    person = _pick(rng, PEOPLE)
    if say["build"] and scene.build != "average" and person.startswith("a"):
        person = f"a {scene.build} {person.split(' ', 1)[1]}"
    looks = []
    if say["hair"]:
        style = f"{scene.hairstyle} " if rng.uniform() < 0.6 else ""
        looks.append(f"{style}{_pick(rng, palette.HAIR[scene.hair].names)} hair")
    if say["skin"]:
        looks.append(f"{_pick(rng, palette.SKIN[scene.skin].names)} skin")
    parts = [f"with {' and '.join(looks)}"] if looks else []
    if say["top"] or say["bottom"]:
        wear = attire_phrase(rng, scene, top=bool(say["top"]), bottom=bool(say["bottom"]))
        parts.append(f"{_pick(rng, ('wearing', 'in', 'dressed in'))} {wear}")
    if rng.uniform() < 0.4:
        parts.reverse()
    verb = _pick(rng, VERBS[scene.family]) if say["verb"] else ""
    place = _pick(rng, PLACES[scene.background]) if say["place"] else ""
    subject = ", ".join((" ".join([person, parts[0]]), *parts[1:])) if parts else person
    order = rng.uniform()
    if place and order < 0.25:
        return f"{place}, {subject} {verb}".strip()
    if order < 0.5 and verb:
        sentence = ", ".join([f"{person} {verb} {place}".rstrip(), *parts])
    else:
        sentence = ", ".join(filter(None, (subject, f"{verb} {place}".strip())))
    return _pick(rng, STYLES) + sentence
