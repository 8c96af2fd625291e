"""Training sets on disk, and seeds: what is judged was never trained on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from miniature import dataset
from miniature.architecture import CONTROL_TYPES, IMAGE_SIZE
from miniature.dataset import CAPTIONS_PER_IMAGE, training_scene, write_arrays, write_examples
from miniature.labels import CLASS_COUNTS, labels_of
from miniature.styles import LESSONS
from miniature.world import control_map, render

COUNT = 3
LESSON_COUNT = 2000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set")
    write_arrays(out, COUNT, controls=True, labels=True)
    return out


def test_the_folder_holds_pictures_captions_labels_and_controls(written: Path) -> None:
    controls = {f"controls_{kind}.npy" for kind in CONTROL_TYPES}
    assert {path.name for path in written.iterdir()} == {
        "images.npy",
        "captions.json",
        "labels.npy",
    } | controls
    for name in {"images.npy"} | controls:
        array = np.load(written / name)
        assert array.shape == (COUNT, IMAGE_SIZE, IMAGE_SIZE, 3), name
        assert array.dtype == np.uint8, name
    captions = json.loads((written / "captions.json").read_text())
    assert [len(texts) for texts in captions] == [CAPTIONS_PER_IMAGE] * COUNT


def test_row_i_is_training_scene_i(written: Path) -> None:
    images, labels = np.load(written / "images.npy"), np.load(written / "labels.npy")
    assert labels.shape == (COUNT, len(CLASS_COUNTS))
    assert (labels < CLASS_COUNTS).all()
    for index in range(COUNT):
        scene, _ = training_scene(index)
        rendered = render(scene)
        assert np.array_equal(images[index], rendered.picture)
        assert np.array_equal(labels[index], labels_of(scene))
        for kind in CONTROL_TYPES:
            assert np.array_equal(
                np.load(written / f"controls_{kind}.npy")[index], control_map(scene, rendered, kind)
            ), kind


def test_a_finished_set_is_not_rendered_again(written: Path) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in written.iterdir()}
    write_arrays(written, COUNT + 1, controls=True, labels=True)
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in written.iterdir()} == before


def test_an_unfinished_set_is_rendered_again(tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_bytes(b"half")
    write_arrays(tmp_path, 1)
    assert np.load(tmp_path / "images.npy").shape[0] == 1


def test_examples_are_the_committed_ones(tmp_path: Path) -> None:
    committed = Path(dataset.__file__).parent / "examples" / "night"
    write_examples(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in committed.iterdir()}
    for path in tmp_path.iterdir():
        if path.suffix == ".txt":
            assert path.read_text() == (committed / path.name).read_text()
        else:
            ours, theirs = (np.asarray(cv2.imread(str(p)), np.int16) for p in (path, committed / path.name))
            assert np.abs(ours - theirs).max() <= 1, path.name
    assert all(LESSONS["night"].trigger in p.read_text() for p in committed.glob("*.txt"))


def test_held_out_seeds_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(rng: np.random.Generator) -> Any:
        return rng.bit_generator.state["state"]["state"]

    monkeypatch.setattr(dataset, "sample_scene", state)
    lesson = SimpleNamespace(sample=lambda rng: (np.zeros(1), state(rng)))
    monkeypatch.setattr(dataset, "LESSONS", {"any": lesson})
    trained: set[Any] = {training_scene(index)[0] for index in range(5_000)}
    _, lessons, _ = dataset._chunk_of_lesson("any", range(LESSON_COUNT))
    held_out: set[Any] = {dataset.held_out_scene(index)[0] for index in range(2000)}
    assert len(trained) == 5_000
    assert len(held_out) == 2000
    assert not held_out & trained
    assert not held_out & {texts[0] for texts in lessons}
