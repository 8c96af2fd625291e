"""Scenes: our own, and those of a file."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from intaglio.errors import ConfigError
from intaglio_client.controls import Control
from intaglio_client.parameters import Lora
from intaglio_client.tune.scenes import default_scenes, read_scenes, seeded

from .deployments import deployment


def test_our_own_scenes_have_a_pose_where_the_library_has_it(tmp_path: Path) -> None:
    scenes = {scene.name: scene for scene in default_scenes(deployment(tmp_path))}
    assert len(scenes) == 16
    assert scenes["waving"].controls == (Control("pose", pose="waving-01"),)
    assert scenes["boxing"].controls == ()
    without = default_scenes(deployment(tmp_path, controlnets={}))
    assert not any(scene.controls for scene in without)


def test_a_seed_that_a_scene_lacks_follows_from_its_place(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "seed": 3}\n{"prompt": "c"}\n')
    found = seeded(read_scenes(path, deployment(tmp_path)), 100)
    assert [scene.seed for scene in found] == [100, 3, 102]


def test_a_file_says_everything_that_a_request_may(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "edges.png")
    path = tmp_path / "scenes.yaml"
    path.write_text(
        "- just a prompt\n"
        "- {prompt: a fox, name: fox, negative_prompt: dark, seed: 7, size: [64, 96], pose: waving-01,\n"
        "   guidance_scale: 4, loras: {night: 0.8},\n"
        "   controls: [{type: canny, image: edges.png, weight: 0.5}]}\n"
    )
    plain, fox = read_scenes(path, deployment(tmp_path))
    assert (plain.name, plain.prompt, plain.width, plain.height) == ("scene-01", "just a prompt", 64, 64)
    edges = Control("canny", image=tmp_path / "edges.png", weight=0.5)
    assert fox.controls == (Control("pose", pose="waving-01"), edges)
    asked = fox.parameters({"steps": 4, "loras": [{"id": "lcm"}]})
    assert asked["loras"] == [Lora("night", 0.8), Lora("lcm")]
    assert (asked["height"], asked["negative_prompt"], asked["steps"]) == (96, "dark", 4)
    every = {"control_every": 2, "control_guidance_end": 0.6}
    assert every.items() <= fox.parameters(every).items()
    assert not set(every) & set(plain.parameters(every))


def test_another_image_is_another_scene(tmp_path: Path) -> None:
    path = tmp_path / "scenes.yaml"
    path.write_text("- {prompt: a, controls: [{type: canny, image: edges.png}]}\n- b\n")
    identities = []
    for colour in ("white", "black"):
        PIL.Image.new("RGB", (8, 8), colour).save(tmp_path / "edges.png")
        identities.append(read_scenes(path, deployment(tmp_path))[0].identity)
    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": \n', r"line 2: is not JSON"),
        (
            "a.jsonl",
            '{"prompt": "a"}\n\n{"promt": "b"}\n',
            r"line 3: .*unknown key promt; did you mean prompt",
        ),
        ("a.yaml", "- prompt: a\n  seed: 1\n- prompt: b\n  seed: -1\n", r"line 3: seed is -1"),
        (
            "a.yaml",
            "- a\n- {prompt: b, size: [32, 32]}\n",
            r"line 2: size is \[32, 32\]; allowed: \[64, 64\]",
        ),
        (
            "a.yaml",
            "- a\n- {prompt: b, controls: [{type: canny, image: no.png}]}\n",
            r"line 2: .*no\.png: no such",
        ),
        (
            "a.yaml",
            "- a\n- {prompt: b, controls: [{type: pose, wieght: 1}]}\n",
            r"line 2: controls: .*wieght",
        ),
        ("a.yaml", "- {prompt: a, name: x}\n- {prompt: b, name: x}\n", r"line 2: another scene is named x"),
        ("a.yaml", "- a\n", r"1 scenes; at least 2"),
        ("a.yaml", "prompt: a\n", r"must be a list of scenes"),
        ("a.yaml", "- [\n", r"not readable as YAML"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_scenes(path, deployment(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        read_scenes(tmp_path / "no.yaml", deployment(tmp_path))
