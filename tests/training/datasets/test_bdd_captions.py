"""`intaglio data bdd-captions`: every published layout gives the same captions."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intaglio.cli import main
from intaglio.exit_codes import FAILED, USAGE
from intaglio_train.datasets.bdd import scenes_of
from intaglio_train.datasets.bdd_command import TEMPLATE
from intaglio_train.datasets.bdd_words import FIELDS, fields_of
from intaglio_train.datasets.captions import captions_in, write_captions
from intaglio_train.datasets.template import Template
from intaglio_train.errors import DataError

from .bdd_labels import CAPTIONS, box, newer_frames, write_layout


def run(*words: object) -> int:
    return main(["data", "bdd-captions", *map(str, words)])


@pytest.mark.parametrize("layout", ["older", "newer", "scalabel", "config first", "pictures"])
def test_every_layout_gives_the_captions(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_layout(layout, tmp_path / "labels")
    assert run(labels, "-o", tmp_path / "captions.jsonl", "--json") == 0
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert {row["file_name"]: row["text"] for row in rows} == CAPTIONS
    said = json.loads(capsys.readouterr().out)
    assert said["captions"] == 4
    assert said["without"] == {"weather": 1, "scene": 1, "timeofday": 1, "objects": 1}


def test_a_table_or_a_folder_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_layout("older", tmp_path / "labels")
    assert run(labels, "-o", tmp_path / "captions.csv", "--quiet") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'captions.csv'}\n"
    with (tmp_path / "captions.csv").open(newline="") as file:
        assert {row["file_name"]: row["text"] for row in csv.DictReader(file)} == CAPTIONS
    assert run(labels, "-o", tmp_path / "texts") == 0
    texts = {path.stem: path.read_text() for path in (tmp_path / "texts").iterdir()}
    assert texts == {Path(name).stem: f"{text}\n" for name, text in CAPTIONS.items()}
    read = captions_in(tmp_path / "texts")
    assert {stem: one.text for stem, one in read.items()} == {Path(n).stem: t for n, t in CAPTIONS.items()}
    capsys.readouterr()
    assert run(labels, "-o", tmp_path / "captions.csv") == USAGE
    assert "captions.csv exists; allowed: another name, or --force" in capsys.readouterr().err
    assert run(labels, "-o", tmp_path / "captions.csv", "--force") == 0


def test_a_template_of_the_users(tmp_path: Path) -> None:
    labels = write_layout("newer", tmp_path / "labels")
    template = tmp_path / "template.txt"
    template.write_text("# mine\n\n{weather} {scene} [({timeofday})] , {objects}.\n")
    assert run(labels, "-o", tmp_path / "c.jsonl", "--template", template) == 0
    texts = [one.text for one in captions_in(tmp_path / "c.jsonl").values()]
    assert texts == [
        "rainy city street (night), 3 cars, a pedestrian and 2 traffic lights.",
        "clear highway (daytime), a truck and a bus.",
        "residential (dawn/dusk), a bicycle and a rider.",
        "foggy,.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a {wether} street",
            "unknown field {wether}; allowed: weather, scene, timeofday, place, time, objects",
        ),
        ("a street[ at {time}", "a bracket is not closed"),
        ("a street[ at [{time}]]", "a bracket is not closed, or stands in another"),
        ("a {place street", "a brace is not closed"),
        ("one\ntwo\n", "has 2 lines that are no comments"),
        ("# nothing\n", "has 0 lines that are no comments"),
    ],
)
def test_a_template_that_means_nothing_is_refused(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_layout("older", tmp_path / "labels")
    (tmp_path / "template.txt").write_text(text)
    code = run(labels, "-o", tmp_path / "c.jsonl", "--template", tmp_path / "template.txt")
    assert code == FAILED
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'template.txt'}: " in printed
    assert said in printed
    assert not (tmp_path / "c.jsonl").exists()


def test_objects_are_counted_in_english(tmp_path: Path) -> None:
    kinds = ["bus", "bus", "motor", "other person", "other vehicle", "other vehicle", "ox cart", "box", "box"]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"name": "a", "labels": [box(0, kind) for kind in kinds]}]))
    (scene,) = scenes_of(path, read=lambda _: None)
    assert (scene.name, scene.attributes) == ("a.jpg", {})
    assert fields_of(scene) == {
        "objects": "2 buses, a motorcycle, 2 other vehicles, another person, 2 boxes and an ox cart"
    }


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("[{", "cannot be read as JSON"),
        ('[{"name": "a.jpg"}', "cannot be read as JSON"),
        ('"labels"', "holds no JSON list and no object"),
        ("", "holds no JSON list and no object"),
        ('{"images": []}', "has no frames and no name"),
        ('[{"attributes": {}}]', "frame 1 has no name"),
        ('[{"name": "../a.jpg"}]', "frame 1, ../a.jpg: the name has folders"),
        (
            '[{"name": "a.jpg"}, {"name": "b.jpg", "labels": {}}]',
            "frame 2, b.jpg: attributes must be an object",
        ),
        ('[{"name": "a.jpg", "labels": [{"box2d": {}}]}]', "frame 1, a.jpg: a label has no category"),
        ('[{"name": "a.jpg"}, {"name": "a.jpg"}]', "labels a a second time"),
        ("[]", "label no picture"),
    ],
)
def test_files_that_hold_something_else_are_named(
    tmp_path: Path, document: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.json"
    path.write_text(document)
    assert run(path, "-o", tmp_path / "c.jsonl") == FAILED
    printed = capsys.readouterr().err
    assert str(path) in printed
    assert said in printed
    assert not (tmp_path / "c.jsonl").exists()


READ = """
import resource, sys
from pathlib import Path
from intaglio_train.datasets.bdd import scenes_of
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, done = most(), []
names = sum(1 for _ in scenes_of(Path(sys.argv[1]), read=done.append))
print(names, done[-1], most() - before)
"""


def test_a_large_file_is_read_in_parts(tmp_path: Path) -> None:
    """Thirty megabytes of labels, of which a process holds one frame at a time."""
    frame: dict[str, Any] = newer_frames()[0]
    path = tmp_path / "labels.json"
    count = 24_000
    with path.open("w") as file:
        file.write("[")
        file.write(",".join(json.dumps({**frame, "name": f"{number}.jpg"}) for number in range(count)))
        file.write("]")
    size = path.stat().st_size
    assert size > 30e6
    names, done, grown = map(
        int, subprocess.check_output([sys.executable, "-c", READ, path], text=True).split()
    )
    assert (names, done) == (count, size)
    assert grown < size / 3


def test_the_packaged_template_is_one(tmp_path: Path) -> None:
    template = Template.read(TEMPLATE, FIELDS)
    assert template.caption({}) == "a dashcam photograph"
    with pytest.raises(DataError, match="cannot be read"):
        Template.read(tmp_path / "absent.txt", FIELDS)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([{"name": "../a.jpg"}], "the name has folders; allowed: the name of a file"),
        ([{"name": "/tmp/a.jpg"}], "the name has folders"),
        ([{"name": "a.jpg"}, {"name": "a.png"}], "labels a a second time"),
        ({"name": "a", "frames": [{"objects": []}, {"objects": []}]}, "has 2 frames, a film"),
    ],
)
def test_what_would_be_written_wrongly_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: Any, said: str
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(document))
    assert run(tmp_path / "labels.json", "-o", tmp_path / "deep/texts") == FAILED
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_a_new_folder_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "c.txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_captions(tmp_path / "texts", dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), "x"))
    assert list(tmp_path.iterdir()) == []
