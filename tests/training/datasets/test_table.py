"""`intaglio data table`: what it writes is what the trainer reads, and it says what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.cli import main
from intaglio.exit_codes import FAILED, USAGE
from intaglio_train.config import DataConfig
from intaglio_train.datasets.table import Layout, split_of
from intaglio_train.folder_layouts import samples_of_folder

SIZE = (48, 32)


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """Eight images with captions and maps, and one of each kind of stray."""
    for number in range(8):
        picture(tmp_path / f"images/{number}.jpg")
        picture(tmp_path / f"maps/{number}.png")
    captions = {f"{number}.jpg": f"a street {number}" for number in range(8)}
    captions["1.jpg"] = 'rain, "heavy"\nrain'
    captions["gone.jpg"] = "no image"
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in captions.items())
    )
    picture(tmp_path / "images/silent.jpg")
    picture(tmp_path / "maps/silent.png")
    picture(tmp_path / "maps/lonely.png")
    picture(tmp_path / "maps/7.png", (32, 32))
    (tmp_path / "images/6.jpg").write_bytes(b"broken")
    return tmp_path


def made(collected: Path, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    given = ["data", "table", collected / "images", "-o", collected / "out", "--json", *words]
    assert main([*map(str, given)]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def read(folder: Path, *, control: bool) -> dict[str, tuple[tuple[str, ...], str | None]]:
    found = samples_of_folder(DataConfig(folder=str(folder)), control=control)
    return {
        sample.image.name: (sample.captions, sample.control.name if sample.control else None)
        for sample in found.samples
    }


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_controlnets_folder_is_what_the_trainer_reads(
    collected: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--kind", "controlnet", "--conditions", collected / "maps", "--format", suffix)
    said = made(collected, capsys, *words, "--captions", collected / "captions.jsonl")
    assert said["splits"] == {"train": 6}
    assert said["sizes"] == {"48x32": 6}
    left_out = {reason: names for reason, names in said["left_out"].items() if names}
    assert left_out.pop("damaged")[0].startswith(f"{collected}/images/6.jpg: ")
    (other_size,) = left_out.pop("other_sizes")
    assert other_size == f"{collected}/maps/7.png is 32x32, 7.jpg 48x32"
    assert left_out == {
        "images_without_caption": ["silent.jpg"],
        "captions_without_image": ["gone.jpg"],
        "conditions_without_image": ["lonely.png"],
    }
    samples = read(collected / "out", control=True)
    assert samples == {
        **{f"{n}.jpg": ((f"a street {n}",), f"{n}.png") for n in (0, 2, 3, 4, 5)},
        "1.jpg": (('rain, "heavy"', "rain"), "1.png"),
    }
    image = collected / "out/train/0.jpg"
    assert image.samefile(collected / "images/0.jpg"), "a link"
    assert (collected / "out/train/conditioning/0.png").samefile(collected / "maps/0.png")


def test_a_loras_folder_in_the_columns_of_imagefolder(
    collected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = collected / "captions.jsonl"
    said = made(collected, capsys, "--kind", "lora", "--captions", captions, "--format", "csv", "--copy")
    assert said["splits"] == {"train": 7}
    with (collected / "out/train/metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [set(row) for row in rows] == [{"file_name", "text"}] * 7
    assert len(read(collected / "out", control=False)) == 7
    image = collected / "out/train/0.jpg"
    assert not image.samefile(collected / "images/0.jpg")
    assert image.read_bytes() == (collected / "images/0.jpg").read_bytes()


def test_captions_beside_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        picture(tmp_path / f"images/{number}.png")
    (tmp_path / "images/0.txt").write_text("zero\n")
    (tmp_path / "images/1.caption").write_text("one")
    said = made(tmp_path, capsys, "--kind", "lora")
    assert said["left_out"]["images_without_caption"] == ["2.png"]
    assert read(tmp_path / "out", control=False) == {"0.png": (("zero",), None), "1.png": (("one",), None)}


def test_a_split_depends_on_names_and_seed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        picture(tmp_path / f"images/{number}.png", (8, 8))
        (tmp_path / f"images/{number}.txt").write_text(f"{number}")
    words = ("--kind", "lora", "--validation", 0.25)
    said = made(tmp_path, capsys, *words)
    rows = (tmp_path / "out/validation/metadata.jsonl").read_text().splitlines()
    held = {json.loads(row)["file_name"] for row in rows}
    assert said["splits"] == {"train": 40 - len(held), "validation": len(held)}
    layout = Layout(validation=0.25)
    assert held == {f"{n}.png" for n in range(40) if split_of(f"{n}.png", layout) == "validation"}
    assert held.isdisjoint(read(tmp_path / "out", control=False))
    other = {
        f"{n}.png" for n in range(40) if split_of(f"{n}.png", Layout(validation=0.25, seed=1)) != "train"
    }
    assert other != held
    shares = [split_of(f"{n}", layout) == "validation" for n in range(4000)]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)


def test_what_cannot_be_written_is_refused(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out, captions = collected / "images", collected / "out", collected / "captions.jsonl"
    base = ["data", "table", images, "-o", out, "--captions", captions]

    def said(*words: object, code: int = FAILED) -> str:
        assert main([*map(str, [*base, *words])]) == code
        assert not (out / "train").exists()
        return capsys.readouterr().err

    assert "conditions: missing; allowed: with --kind controlnet" in said("--kind", "controlnet", code=USAGE)
    assert "conditions: given" in said("--kind", "lora", "--conditions", collected / "maps", code=USAGE)
    printed = said("--kind", "lora", "--strict")
    assert "left out: 1 images without a caption: silent.jpg" in printed
    assert "3 files have no partner (--strict)" in printed
    picture(images / "0.png")
    assert "has the stem of 0.jpg" in said("--kind", "lora")
    (images / "0.png").unlink()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert f"{out}: is there and not empty" in said("--kind", "lora")
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file_name": "0.jpg", "text": ""}', "row 1 has no file_name or no text"),
        ('{"text": "a"}', "row 1 has no file_name or no text"),
        (
            '{"file_name": "0.jpg", "text": "a"}\n{"file_name": "0.png", "text": "b"}',
            "row 2: a second caption for 0",
        ),
        ('{"file_name": "0.jpg", "text": 3}', "a caption is text"),
        ("", "has no rows"),
    ],
)
def test_captions_that_say_nothing_are_refused(
    collected: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (collected / "captions.jsonl").write_text(text)
    words = ["data", "table", collected / "images", "-o", collected / "out", "--kind", "lora"]
    assert main([*map(str, words), "--captions", str(collected / "captions.jsonl")]) == FAILED
    assert said in capsys.readouterr().err
    assert not (collected / "out").exists()


def test_a_split_without_samples_and_subfolders_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("0.png", "deep/1.png"):
        picture(tmp_path / f"images/{file}", (8, 8))
        (tmp_path / f"images/{file}").with_suffix(".txt").write_text("a picture")
    said = made(tmp_path, capsys, "--kind", "lora", "--validation", 0.01)
    assert said["splits"] == {"train": 1, "validation": 0}
    assert said["left_out"]["subfolders"] == ["deep"]
    assert not (tmp_path / "out/validation").exists()


def test_near_duplicates_are_in_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        picture(tmp_path / f"images/{number:02}.png", (64, 64))
        (tmp_path / f"images/{number:02}.txt").write_text("a picture")
    with Image.open(tmp_path / "images/00.png") as first:
        pixels = np.asarray(first).astype(np.int64)
    same = {f"{number:02}.png" for number in range(0, 40, 2)}
    for index, name in enumerate(sorted(same)):
        lighter = (pixels + index // 2).clip(0, 255).astype(np.uint8)
        Image.fromarray(lighter).save(tmp_path / "images" / name)
    files = {(tmp_path / "images" / name).read_bytes() for name in same}
    assert len(files) == 10, "some are equal, some nearly"
    layout = Layout(validation=0.25)
    assert len({split_of(name, layout) for name in same}) == 2, "their own names would part them"
    said = made(tmp_path, capsys, "--kind", "lora", "--validation", 0.25)
    assert said["splits"]["validation"] > 0
    place = tmp_path / "out" / split_of("00.png", layout)
    assert same <= {path.name for path in place.iterdir()}


def drive(folder: Path, frames: int) -> None:
    """Pictures of which each is nearly the next, and one of another scene."""
    picture(folder / "00.png", (64, 64))
    pixels = np.asarray(Image.open(folder / "00.png")).astype(np.int64)
    for number in range(frames):
        frame = (pixels + number).clip(0, 255).astype(np.uint8)
        Image.fromarray(frame).save(folder / f"{number:02}.png")
    picture(folder / "other.png", (64, 64))
    for path in folder.glob("*.png"):
        path.with_suffix(".txt").write_text("a picture")


def test_a_drive_that_is_one_group_is_named_with_its_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(tmp_path / "images", 19)
    given = ["data", "table", tmp_path / "images", "-o", tmp_path / "out", "--kind", "lora", "--validation"]
    seeds = {split_of("00.png", Layout(validation=0.5, seed=seed)): seed for seed in range(50)}
    assert main([*map(str, [*given, 0.5, "--seed", seeds["train"]])]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "19 of 20 samples (95%) are one group of near duplicates, which is in one split" in said
    (tmp_path / "images/other.txt").unlink()
    given[4] = tmp_path / "second"
    assert main([*map(str, [*given, 0.5, "--seed", seeds["validation"]])]) == FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "all 19 fall into the split validation. 19 of 19 samples (100%) are one group" in said
    assert "lower --validation" not in said


def test_samples_that_all_fall_into_validation_by_chance_ask_for_a_lower_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "images/0.png")
    (tmp_path / "images/0.txt").write_text("a picture")
    seed = next(seed for seed in range(50) if split_of("0.png", Layout(validation=0.5, seed=seed)) != "train")
    given = ["data", "table", tmp_path / "images", "-o", tmp_path / "out", "--kind", "lora"]
    assert main([*map(str, [*given, "--validation", 0.5, "--seed", seed])]) == FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "all 1 fall into the split validation; lower --validation" in said


def test_damaged_images_are_named_and_form_no_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        picture(tmp_path / f"images/{number:02}.png", (64, 64))
        (tmp_path / f"images/{number:02}.txt").write_text("a picture")
    for path in sorted((tmp_path / "images").glob("*.png"))[:20]:
        path.write_bytes(path.read_bytes()[:2000])
    given = ["data", "table", tmp_path / "images", "-o", tmp_path / "out", "--kind", "lora"]
    assert main([*map(str, [*given, "--validation", 0.5])]) == 0
    assert "compared with no other: 20 damaged: " in " ".join(capsys.readouterr().err.split())
    layout = Layout(validation=0.5)
    held = {path.name for path in (tmp_path / "out/validation").glob("*.png")}
    assert held == {
        f"{number:02}.png" for number in range(30) if split_of(f"{number:02}.png", layout) != "train"
    }
