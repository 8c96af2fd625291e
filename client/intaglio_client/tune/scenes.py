"""Which pictures are drawn: a default set of 16 scenes, or a user's file.

A file is YAML (a list of scenes) or JSON lines (one scene a line). A scene has `prompt`, and may have `name`,
`negative_prompt`, `seed`, `size` ([width, height]), `guidance_scale`, `pose` (of the server's library),
`controls` (each `type` and `image` or `pose`, and `weight`, `begin`, `end`) and `loras` (id: weight). Paths
of images are relative to the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, PositiveInt, ValidationError

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import LoraWeight
from intaglio.contract.yaml_files import RegistryId, Strict
from intaglio.errors import ConfigError
from intaglio.validation_errors import problems_text
from intaglio_client.controls import POSE, Control, encoded_image
from intaglio_client.parameters import Lora
from intaglio_client.tune.settings import OF_CONTROLS

__all__ = ["Scene", "default_scenes", "read_scenes", "seeded"]

_DEFAULTS: Final[Mapping[str, str]] = {
    "standing": "a person with brown hair, in a yellow top and white trousers, standing in a forest",
    "walking": "an acrobat with long blonde hair, in a red shirt and blue trousers, walking on a beach",
    "running": "a person with black hair, wearing a blue t-shirt and black shorts, running in a city street",
    "dancing": "a performer in a purple top and white leggings, dancing on a stage",
    "sitting": "someone with silver hair, in a green sweater and blue pants, sitting in a room",
    "jumping": "a performer with short black hair, in a white sweater and green pants, jumping in the snow",
    "reaching": "a figure with blonde hair, in a red top and black trousers, reaching under the night sky",
    "waving": "a person with ginger hair, in a yellow shirt and red trousers, waving hello on a beach",
    "kicking": "someone with silver hair, in a blue shirt and red pants, kicking in a desert",
    "bowing": "an acrobat with brown hair, in a white shirt and black trousers, bowing on a stage",
    "lunging": "a person with black hair, in a green t-shirt and yellow shorts, lunging in a desert",
    "squatting": "a figure with ginger hair, in a purple sweater and blue pants, squatting in a forest",
    "stretching": "a person with blonde hair, in a white top and red leggings, stretching in a room",
    "cheering": "an acrobat with ginger hair, in a red sweater and white pants, cheering under the night sky",
    "boxing": "a person with short brown hair, in a black top and red shorts, boxing in a city street",
    "balancing": "a performer with silver hair, in a blue top and yellow trousers, balancing in the snow",
}
"""Pose -> prompt. Any model of people draws them; a pose of the library of that name is the control."""
_PARTS: Final = ("prompt", "negative_prompt", "seed", "width", "height", "guidance_scale")


@dataclass(frozen=True)
class Scene:
    """One picture as it is asked for, without the setting."""

    name: str
    prompt: str
    width: int
    height: int
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    controls: tuple[Control, ...] = ()
    loras: tuple[Lora, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """All that the picture depends on; a digest stands for an image."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _PARTS}
        found["controls"] = [_control_identity(control) for control in self.controls]
        found["loras"] = [dataclasses.asdict(lora) for lora in self.loras]
        return found

    def parameters(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of `Client.generate`, for this scene with a setting's `inputs`. A scene without
        controls leaves out what is about controls.
        """
        own = {name: getattr(self, name) for name in _PARTS[1:]}
        left_out = ("loras",) if self.controls else ("loras", *OF_CONTROLS)
        given = {key: value for key, value in inputs.items() if key not in left_out}
        added = [Lora(**entry) for entry in inputs.get("loras", ())]
        return {**own, **given, "controls": self.controls, "loras": [*self.loras, *added]}


def _control_identity(control: Control) -> dict[str, Any]:
    """The fields that are not their defaults: a field that a later version adds changes no picture."""
    values = {one.name: (getattr(control, one.name), one.default) for one in dataclasses.fields(control)}
    found = {name: value for name, (value, default) in values.items() if value != default}
    if control.image is not None:
        data = encoded_image(control.image, field="image")
        found["image"] = hashlib.sha256(data).hexdigest()
    return found


class _FileControl(Strict, extra="allow"):
    type: RegistryId
    image: Path | None = None
    pose: RegistryId | None = None


class _FileScene(Strict):
    """One scene of a user's file."""

    prompt: str = Field(min_length=1)
    name: RegistryId | None = None
    negative_prompt: str | None = None
    seed: int | None = Field(default=None, ge=0)
    size: tuple[PositiveInt, PositiveInt] | None = None
    guidance_scale: float | None = None
    pose: RegistryId | None = None
    controls: tuple[_FileControl, ...] = ()
    loras: dict[RegistryId, LoraWeight | None] = Field(default_factory=dict)


def default_scenes(deployment: Deployment) -> tuple[Scene, ...]:
    """16 people in 16 poses, at the deployment's first size. Without a pose ControlNet or a library with such
    poses the prompts stand alone.
    """
    width, height = deployment.profiles.sizes[0]
    has_control = any(net.type == POSE for net in deployment.controlnets.values())
    library = deployment.poses if has_control else None
    scenes = []
    for name, prompt in _DEFAULTS.items():
        pose = f"{name}-01"
        has_pose = library is not None and (library / f"{pose}.json").is_file()
        controls = (Control(POSE, pose=pose),) if has_pose else ()
        scenes.append(Scene(name, prompt, width, height, controls=controls))
    return tuple(scenes)


def seeded(scenes: Sequence[Scene], first: int) -> tuple[Scene, ...]:
    """`scenes`, where those without a seed get `first`, `first + 1`, ... by their place."""
    return tuple(
        scene if scene.seed is not None else dataclasses.replace(scene, seed=first + index)
        for index, scene in enumerate(scenes)
    )


def read_scenes(path: Path, deployment: Deployment) -> tuple[Scene, ...]:
    """The scenes of a file.

    Raises:
        ConfigError: names the line that is wrong and what would be right.
    """
    found: dict[str, Scene] = {}
    for line, data in _entries(path):
        scene = _scene_of(data, f"{path}: line {line}", path.parent, deployment, len(found))
        if scene.name in found:
            raise ConfigError(f"{path}: line {line}: another scene is named {scene.name} too")
        found[scene.name] = scene
    if len(found) < 2:
        raise ConfigError(
            f"{path}: {len(found)} scenes; at least 2 are needed, since one has no standard error"
        )
    return tuple(found.values())


def _entries(path: Path) -> Iterator[tuple[int, Any]]:
    """Every scene as data, and the line where it begins."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if path.suffix in (".jsonl", ".ndjson"):
        for line, one in enumerate(text.splitlines(), 1):
            if one.strip():
                yield line, _json(one, f"{path}: line {line}")
        return
    try:
        data = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(data, list) or node is None:
        raise ConfigError(f"{path}: must be a list of scenes, each with a prompt; JSON lines end in .jsonl")
    for item, value in zip(node.value, data, strict=True):
        yield item.start_mark.line + 1, value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from error


def _scene_of(data: Any, where: str, folder: Path, deployment: Deployment, index: int) -> Scene:
    if isinstance(data, str):
        data = {"prompt": data}
    try:
        entry = _FileScene.model_validate(data)
        controls = [_control_of(control, folder) for control in entry.controls]
    except ValidationError as error:
        raise ConfigError(f"{where}: {problems_text(error, _FileScene)}") from error
    except TypeError as error:
        raise ConfigError(f"{where}: controls: {error}") from error
    if entry.pose is not None:
        controls.insert(0, Control(POSE, pose=entry.pose))
    for control in controls:
        if isinstance(control.image, Path) and not control.image.is_file():
            raise ConfigError(f"{where}: {control.image}: no such file")
    size = entry.size or deployment.profiles.sizes[0]
    if size not in deployment.profiles.sizes:
        sizes = ", ".join(f"[{width}, {height}]" for width, height in deployment.profiles.sizes)
        raise ConfigError(f"{where}: size is {list(size)}; allowed: {sizes}")
    return Scene(
        name=entry.name or f"scene-{index + 1:02d}",
        prompt=entry.prompt,
        width=size[0],
        height=size[1],
        negative_prompt=entry.negative_prompt,
        seed=entry.seed,
        guidance_scale=entry.guidance_scale,
        controls=tuple(controls),
        loras=tuple(Lora(name, weight) for name, weight in entry.loras.items()),
    )


def _control_of(entry: _FileControl, folder: Path) -> Control:
    others = entry.model_extra or {}
    image = None if entry.image is None else (folder / entry.image.expanduser()).resolve()
    return Control(entry.type, image=image, pose=entry.pose, **others)
