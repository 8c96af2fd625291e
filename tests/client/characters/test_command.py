"""`intaglio characters` from the first photograph to `forget`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageEnhance
from typer.testing import CliRunner

from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.characters.command import app

from ...photographs import nobody, one_person, portraits

__all__ = ["portraits"]

FACES = Path(__file__).parents[3] / "miniature/faces"
IDENTITY = {
    "characters": "characters",
    "detector": str(FACES / "blazeface.onnx"),
    "recognition": str(FACES / "dlib-face-resnet.onnx"),
    "template": "dlib",
    "mean": 0,
    "std": 1,
    "confidence": 0.7,
    "measure": "euclidean",
    "threshold": 0.355,
}
DEPLOYMENT = {"base": [{"folder": "base"}], "profiles": {"sizes": [[64, 64]]}, "identity": IDENTITY}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployment, a registry and photographs."""
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(DEPLOYMENT))
    photo = one_person()
    photo.save(tmp_path / "one.png")
    ImageEnhance.Brightness(photo.crop((60, 0, 500, 400))).enhance(1.2).save(tmp_path / "two.jpg")
    photo.resize((128, 128)).save(tmp_path / "tiny.png")
    nobody().save(tmp_path / "cup.png")
    registry = {
        "ann": {"prompt": "ann {prompt}", "reference_images": ["one.png"], "threshold": 0.3},
        "bob": {"prompt": "bob {prompt}", "loras": {"bob": 1.0}},
    }
    (tmp_path / "characters.yaml").write_text(yaml.safe_dump({"characters": registry}))
    return tmp_path


def run(folder: Path, *words: str) -> Any:
    """The command; its own errors are raised. `check` and `list` take no file for granted."""
    options = ["--config", str(folder / "a.yaml")]
    if words[0] != "check":
        options += ["--characters", str(folder / "characters.yaml")]
    done = CliRunner().invoke(app, [*words, *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def said(folder: Path, *words: str) -> Any:
    return json.loads(run(folder, *words, "--json").stdout)


def test_a_character_from_its_registry_to_its_end(folder: Path) -> None:
    """Without photographs those of the registry are taken, and its threshold."""
    done = run(folder, "enroll", "ann")
    assert done.exit_code == 0
    assert "ann: 1 reference" in done.stdout
    shown = said(folder, "show", "ann")
    assert (shown["references"], shown["threshold"], shown["registered"]) == (1, 0.3, True)
    assert [one["name"] for one in shown["photographs"]] == ["one.png"]
    assert "embedding" not in json.dumps(shown)
    file = folder / "characters/ann.json"
    assert file.stat().st_mode & 0o777 == 0o600
    added = said(folder, "enroll", "ann", str(folder / "two.jpg"), str(folder / "one.png"))
    assert [one["detail"] for one in added["photographs"]][1] == "enrolled before"
    assert said(folder, "show", "ann")["references"] == 2
    listed = {one["name"]: one for one in said(folder, "list")["characters"]}
    assert (listed["ann"]["references"], listed["bob"]["references"]) == (2, 0)
    assert listed["bob"]["loras"] == ["bob"]
    assert run(folder, "list", "--quiet").stdout == "ann\n"
    checked = said(folder, "check")
    (near,) = checked.pop("measured")
    assert checked == {"characters": 1, "found": [], "refused": 0}
    assert (near["name"], near["references"]) == ("ann", 2)
    assert 0 < near["nearest"] == near["farthest"] < 0.3, "two references are as far from each other"
    assert "ann: 2 references, each to the others euclidean 0." in run(folder, "check").stdout
    (folder / "characters/ann.json.intaglio-q1q1q1q1.tmp").write_text("of a process that was killed")
    gone = said(folder, "forget", "ann")
    assert gone["removed"] == [str(file), f"{file}.intaglio-q1q1q1q1.tmp"]
    assert gone["reference_images"] == [str(folder / "one.png")], "which stay"
    assert not (folder / "characters").exists()
    for words in (("forget", "ann"), ("show", "eve")):
        with pytest.raises(InvalidRequest, match="allowed: a name of `intaglio characters list`"):
            run(folder, *words)
    assert "embedding" not in "".join(path.read_text() for path in folder.rglob("*.yaml"))


def test_a_photograph_that_is_refused_does_not_stop_the_others(folder: Path) -> None:
    crowd = Image.new("RGB", (1024, 512))
    crowd.paste(one_person(), (0, 0))
    crowd.paste(one_person(), (512, 0))
    crowd.save(folder / "crowd.png")
    (folder / "broken.png").write_bytes(b"no picture")
    names = ("cup.png", "tiny.png", "crowd.png", "broken.png", "nowhere.png")
    given = [str(folder / name) for name in (*names, "one.png")]
    done = run(folder, "enroll", "eve", *given)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    says = ("no face; allowed:", "face too small (", "2 faces; allowed:", "allowed:", "No such file")
    for line, name, text in zip(lines, names, says, strict=True):
        assert name in line
        assert text in line
    assert said(folder, "show", "eve")["references"] == 1
    none = run(folder, "enroll", "carl", given[0])
    assert none.exit_code == 1
    assert not (folder / "characters/carl.json").exists(), "nothing is written without a reference"


def test_another_person_is_warned_of(folder: Path, portraits: dict[str, Image.Image]) -> None:
    for name in ("obama", "obama2", "biden"):
        portraits[name].save(folder / f"{name}.png")
    run(folder, "enroll", "eve", str(folder / "obama.png"))
    mixed = run(folder, "enroll", "eve", str(folder / "obama2.png"), str(folder / "biden.png"))
    assert mixed.exit_code == 0
    assert "biden.png: not like the other references (euclidean 0.5" in mixed.stdout
    run(folder, "enroll", "carl", str(folder / "obama2.png"))
    found = said(folder, "check")["found"]
    assert {one["state"] for one in found} == {"warning"}
    details = " ".join(one["detail"] for one in found)
    assert "eve: biden.png: not like the other references" in details
    assert "carl: eve's obama.png counts as carl, too" in details
    run(folder, "enroll", "eve", str(folder / "obama.png"), "--replace")
    assert said(folder, "show", "eve")["references"] == 1


def test_thresholds_are_of_the_deployments_measure(folder: Path) -> None:
    run(folder, "enroll", "ann", "--threshold", "0.25")
    assert said(folder, "show", "ann")["threshold"] == 0.25
    with pytest.raises(
        InvalidRequest, match=r"threshold: -0\.5; allowed: 0 to 2, since .* measures euclidean"
    ):
        run(folder, "enroll", "ann", "--threshold=-0.5")


@pytest.mark.parametrize("gone", ["one.png", "characters.yaml"])
def test_what_the_registry_lacks_does_not_keep_anyone_from_forgetting(folder: Path, gone: str) -> None:
    run(folder, "enroll", "ann")
    (folder / gone).unlink()
    done = run(folder, "forget", "ann")
    assert done.exit_code == 0
    assert "ann: forgotten" in done.stdout
    assert "What the registry still has of ann is unknown: " in done.stdout
    assert not (folder / "characters").exists()


def test_no_threshold_of_one_measure_is_taken_for_one_of_another(folder: Path) -> None:
    """The registry's 0.3 is a distance here. As a cosine nearly everybody would match it."""
    run(folder, "enroll", "ann")
    cosine = {**DEPLOYMENT, "identity": IDENTITY | {"measure": "cosine", "threshold": 0.94}}
    (folder / "a.yaml").write_text(yaml.safe_dump(cosine))
    wrong = "its threshold is of euclidean, the deployment measures cosine; enroll ann again"
    assert wrong in run(folder, "check").stdout
    with pytest.raises(ConfigError, match=wrong):
        run(folder, "enroll", "ann", str(folder / "two.jpg"), "--threshold", "0.95")
    run(folder, "enroll", "ann", str(folder / "two.jpg"), "--threshold", "0.95", "--replace")
    assert run(folder, "check").exit_code == 0


def test_no_more_of_a_photograph_is_read_than_a_request_may_send(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    done = run(folder, "enroll", "ann", str(folder / "huge.png"))
    assert done.exit_code == 1
    assert "huge.png: more than 33554432 bytes; allowed: at most 33554432" in done.stderr


def test_what_is_wrong_is_named(folder: Path) -> None:
    with pytest.raises(
        InvalidRequest, match="images: none are given; allowed: photographs, or reference_images"
    ):
        run(folder, "enroll", "bob")
    with pytest.raises(InvalidRequest, match=r"character: '\.\./bob'; allowed: at most 64 lower-case"):
        run(folder, "enroll", "../bob", str(folder / "one.png"))
    run(folder, "enroll", "ann")
    file = folder / "characters/ann.json"
    file.chmod(0o644)
    assert run(folder, "check").exit_code == 1
    assert "others may read it" in said(folder, "list")["refused"]["ann"]
    file.chmod(0o600)
    changed = {**DEPLOYMENT, "identity": {**IDENTITY, "std": 2}}
    (folder / "a.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(ConfigError, match="enrolled with other networks; enroll ann again with --replace"):
        run(folder, "enroll", "ann")
    (folder / "characters").chmod(0o755)
    assert said(folder, "forget", "ann")["removed"], "also from a folder that others may look into"
    (folder / "a.yaml").write_text(yaml.safe_dump({**DEPLOYMENT, "identity": None}))
    with pytest.raises(ConfigError, match=r"a\.yaml: reads no faces; add identity: to it"):
        run(folder, "list")
