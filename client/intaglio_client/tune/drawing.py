"""One picture of every scene with every setting, timed at the client.

Of each scene the baseline is drawn first and then the others, beginning with another one at every scene: what
slows the machine for a while slows all settings of a scene, and no setting is always first. Settings with
other LoRAs come last, since the server changes its weights for them. Before the first picture of a set of
LoRAs one request that counts for nothing is sent: changing the weights and encoding the prompt is nobody's
time.
A picture that is on disk is not drawn again. When some of a scene are missing, its baseline is drawn again
beside them, so that seconds are compared only within one run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from intaglio.builds.manifest import BuildManifest
from intaglio_client.client import Client
from intaglio_client.image import Image
from intaglio_client.tune.kept import Kept, Taken
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.serving import check_served
from intaglio_client.tune.settings import Setting, stated_inputs

__all__ = ["Drawing", "Progress", "draw_scenes", "in_turn", "missing_weight"]


class Progress(Protocol):
    """Who is told what is drawn."""

    def started(self, work: str) -> None: ...
    def finished(self, weight: float) -> None: ...


@dataclass(frozen=True)
class Drawing:
    """What is drawn, by whom, and where it is kept."""

    scenes: Sequence[Scene]
    settings: Sequence[Setting]
    """The baseline first, then the others; the reference is one of them where it is drawn here."""
    kept: Kept
    manifest: BuildManifest


def missing_weight(drawing: Drawing) -> float:
    """How much is not drawn yet, in steps."""
    return sum(sum(setting.weight for setting in _to_draw(drawing, scene)) for scene in drawing.scenes)


def draw_scenes(drawing: Drawing, client: Client, progress: Progress) -> None:
    """Draw what is missing.

    Raises:
        InvalidRequest, Unavailable: what the server answers. What is drawn stays, and a second call goes on.
        ConfigError: the server serves another build.
    """
    for index, scene in enumerate(drawing.scenes):
        wanted = _to_draw(drawing, scene)
        if not wanted:
            continue
        seconds = 0.0
        resident: str | None = None
        for setting in in_turn(wanted, index):
            progress.started(f"{scene.name}: {setting.name}")
            loras = _loras_of(setting)
            if loras != resident:
                _warm(client, scene, setting)
                resident = loras
            image = _draw(client, scene, stated_inputs(setting))
            check_served(image, drawing.manifest, url=client.url)
            taken = image.timings["request"]
            if setting is wanted[0]:
                seconds = taken
            drawing.kept.keep(scene, setting, image.data, Taken(taken, seconds))
            progress.finished(setting.weight)


def _to_draw(drawing: Drawing, scene: Scene) -> list[Setting]:
    """The settings of which the scene has no picture, behind the baseline; none where nothing is missing."""
    baseline, *others = drawing.settings
    missing = [setting for setting in others if drawing.kept.taken(scene, setting) is None]
    if not missing and drawing.kept.taken(scene, baseline) is not None:
        return []
    return [baseline, *missing]


def in_turn(settings: Sequence[Setting], scene: int) -> Iterator[Setting]:
    """The first setting, then the others from place `scene` on, in a circle; those with LoRAs of their own
    last, one set after another.
    """
    baseline, *others = settings
    yield baseline
    plain = [setting for setting in others if not _loras_of(setting)]
    first = scene % len(plain) if plain else 0
    yield from (*plain[first:], *plain[:first])
    yield from sorted((setting for setting in others if _loras_of(setting)), key=_loras_of)


def _loras_of(setting: Setting) -> str:
    loras: Iterable[Mapping[str, Any]] = setting.inputs.get("loras", ())
    return json.dumps([dict(lora) for lora in loras]) if loras else ""


def _warm(client: Client, scene: Scene, setting: Setting) -> None:
    # A few-step method is not asked for a step that it is not made for: the server would warn of it.
    own = "loras" in setting.inputs
    _draw(client, scene, stated_inputs(setting) if own else {"steps": 1, "scheduler": "euler"})


def _draw(client: Client, scene: Scene, inputs: Mapping[str, Any]) -> Image:
    parameters: Any = scene.parameters(inputs)
    return client.generate(scene.prompt, **parameters)
