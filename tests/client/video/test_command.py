"""`intaglio video`, checked by decoding what it writes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from intaglio.cli import main
from intaglio.exit_codes import FAILED, INTERRUPTED, TERMINATED, USAGE
from intaglio_client.video.binary import find_ffmpeg
from intaglio_client.video.command import app
from intaglio_client.video.encoders import ENCODERS

from ..batch.records import record
from .decoding import SIZE, number_in, numbered, numbers_in, read_video
from .sounds import write_tone

Said = Callable[..., Any]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve numbered pictures, whose names sort otherwise by letters than by numbers."""
    folder = tmp_path_factory.mktemp("frames")
    for number in range(12):
        numbered(number).save(folder / f"frame{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def made(*words: object) -> dict[str, Any]:
    """What `intaglio video WORDS --json` says."""
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def refused(capsys: pytest.CaptureFixture[str], *words: object, code: int = USAGE) -> str:
    """The one line with which it ends."""
    assert main(["video", *map(str, words)]) == code
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_a_folder_of_frames_in_natural_order(frames: Path, tmp_path: Path) -> None:
    said = made(frames, "-o", tmp_path / "a.mp4", "--fps", "30000/1001")
    read = read_video(tmp_path / "a.mp4")
    assert numbers_in(read) == list(range(12))
    assert (read.codec, read.size, read.fps) == (said["codec"], SIZE, 29.97)
    assert read.seconds == pytest.approx(12 * 1001 / 30000, abs=0.02)
    assert said["seconds"] == pytest.approx(12 * 1001 / 30000)
    assert (said["pictures"], said["frames"], said["width"], said["height"]) == (12, 12, *SIZE)
    assert said["bytes"] == (tmp_path / "a.mp4").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_each_picture_lasts_as_long_as_it_is_told(frames: Path, tmp_path: Path) -> None:
    words = (frames / "frame1.png", frames / "frame10.png", frames / "frame2.png")
    made(*words, "-o", tmp_path / "a.mp4", "--fps", 10, "--duration", 0.35)
    assert numbers_in(read_video(tmp_path / "a.mp4")) == [1] * 4 + [2] * 3 + [10] * 3, "3.5 frames each"
    made(*words, "-o", tmp_path / "b.mp4", "--fps", 10, "--duration", 0.2, "--as-given")
    assert numbers_in(read_video(tmp_path / "b.mp4")) == [1, 1, 10, 10, 2, 2]


def test_a_pattern_is_matched_here(frames: Path, tmp_path: Path) -> None:
    made(frames / "frame?.png", "-o", tmp_path / "a.mp4")
    assert numbers_in(read_video(tmp_path / "a.mp4")) == list(range(10))


@pytest.mark.parametrize("name", [*ENCODERS])
def test_every_encoder_that_works_here(
    frames: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    code = main(["video", str(frames), "-o", str(out), "--encoder", name, "--quality", "best"])
    printed = capsys.readouterr()
    if code == USAGE:  # not built in, or without its library or card
        assert f"encoder: {name}: " in printed.err or f"has no {name}" in printed.err
        assert not out.exists()
        return
    assert code == 0, printed.err
    read = read_video(out)
    assert read.codec == ENCODERS[name].codec
    assert numbers_in(read) == list(range(12))
    assert read.seconds == pytest.approx(0.5, abs=0.02)


def test_colours_are_kept(tmp_path: Path) -> None:
    """A player that takes the file's word for its colours sees those of the pictures."""
    numbered(5).save(tmp_path / "a.png")
    made(tmp_path / "a.png", "-o", tmp_path / "a.mp4", "--duration", 0.5, "--quality", "best")
    read = read_video(tmp_path / "a.mp4")
    assert "(tv, bt709, progressive)" in read.said, "matrix, primaries and transfer"
    difference = np.abs(read.frames[0].astype(int) - np.asarray(numbered(5)).astype(int))
    assert difference[40:].max() <= 4
    assert number_in(read.frames[-1]) == 5


def test_a_gif(frames: Path, tmp_path: Path) -> None:
    said = made(frames, "-o", tmp_path / "a.gif", "--fps", 10, "--duration", 0.2)
    assert (said["codec"], said["seconds"]) == ("gif", 2.4)
    read = read_video(tmp_path / "a.gif")
    assert read.size == SIZE
    with Image.open(tmp_path / "a.gif") as image:
        shown: list[int] = []
        length = 0
        for index in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(index)
            length += image.info["duration"]
            shown.append(number_in(np.asarray(image.convert("RGB"))))
    assert length == 2400
    assert sorted(set(shown)) == list(range(12)) == list(dict.fromkeys(shown))


@pytest.mark.parametrize("transition", ["crossfade", "slide", "zoom"])
def test_transitions_keep_the_length(tmp_path: Path, transition: str) -> None:
    for name, value in (("a", 0), ("b", 200), ("c", 60)):
        Image.new("RGB", (64, 64), (value, value, value)).save(tmp_path / f"{name}.png")
    words = ("--duration", 1, "--transition-seconds", 0.5, "--transition", transition, "--fps", 10)
    made(*(tmp_path / f"{name}.png" for name in "abc"), "-o", tmp_path / "a.mp4", *words)
    read = read_video(tmp_path / "a.mp4")
    assert len(read.frames) == 30
    assert read.seconds == pytest.approx(3, abs=0.05)
    means = read.frames.mean((1, 2, 3))
    assert means[:5] == pytest.approx(0, abs=3)
    assert means[10:15] == pytest.approx(200, abs=3)
    assert means[20:] == pytest.approx(60, abs=3)
    coming = means[5:10]
    assert list(coming) == sorted(coming)
    assert 10 < coming[0] < coming[-1] < 190
    sides = read.frames[7, :, 4].mean(), read.frames[7, :, -4].mean()
    assert (sides[0] < 20 and sides[1] > 180) == (transition == "slide")


def test_ken_burns_moves_and_ends_where_the_picture_is_whole(tmp_path: Path) -> None:
    numbered(21).resize((192, 128)).save(tmp_path / "a.png")
    words = ("--ken-burns", 0.3, "--duration", 1, "--fps", 10, "--quality", "best", "--size", "96x64")
    made(tmp_path / "a.png", "-o", tmp_path / "a.mp4", *words)
    frames = read_video(tmp_path / "a.mp4").frames.astype(int)
    whole = np.asarray(numbered(21)).astype(int)
    distances = [np.abs(frame - whole).mean() for frame in frames]
    assert distances[0] < 6
    assert distances[-1] > 2 * distances[0]
    moved = [np.abs(after - before).mean() for before, after in itertools.pairwise(frames)]
    assert min(moved[1:-1]) > 0.2


@pytest.mark.parametrize(
    ("fit", "corner", "middle"), [("fit", 0, 200), ("fill", 200, 200), ("stretch", 200, 200)]
)
def test_mixed_sizes_get_the_size_of_the_first(
    tmp_path: Path, fit: str, corner: int, middle: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (65, 49), (10, 10, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 80), (200, 200, 200)).save(tmp_path / "b.jpg", quality=95)
    out = tmp_path / "a.mp4"
    assert main(["video", str(tmp_path), "-o", str(out), "--fit", fit]) == 0
    assert f"1 of 2 pictures are not 64x48: {fit}" in capsys.readouterr().err
    second = read_video(out).frames[1]
    assert second.shape == (48, 64, 3)
    assert second[4, 4].mean() == pytest.approx(corner, abs=6)
    assert second[24, 32].mean() == pytest.approx(middle, abs=6)


def test_an_odd_side_loses_a_pixel_and_gets_no_border(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (101, 150), "white").save(tmp_path / "odd.png")
    assert main(["video", str(tmp_path / "odd.png"), "-o", str(tmp_path / "odd.mp4")]) == 0
    assert "pictures are not" not in capsys.readouterr().err
    (frame,) = read_video(tmp_path / "odd.mp4").frames
    assert frame.shape[:2] == (150, 100)
    assert frame.min() > 240


def test_names_that_ffmpeg_would_read_otherwise(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an option, or as an address."""
    monkeypatch.chdir(tmp_path)
    write_tone(Path("12:30.wav"))
    assert made(frames, "--out=-i/a.mp4", "--audio", "12:30.wav")["frames"] == 12
    assert made(frames, "-o", "http:a/a.gif", "--fps", "10")["frames"] == 12
    assert read_video(tmp_path / "-i/a.mp4").codec
    assert (tmp_path / "http:a/a.gif").is_file()


def test_sound_is_cut_to_the_pictures(frames: Path, tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav")
    made(frames, "-o", tmp_path / "a.mp4", "--fps", 12, "--audio", tmp_path / "tone.wav")
    read = read_video(tmp_path / "a.mp4")
    assert "Audio: aac" in read.said
    assert read.seconds == pytest.approx(1.0, abs=0.05)
    assert numbers_in(read) == list(range(12))


def test_damaged_sound_is_told(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, out = tmp_path / "tone.ogg", tmp_path / "a.mp4"
    source = ("-f", "lavfi", "-i", "sine=duration=20")
    assert find_ffmpeg().problem_of(*source, "-c:a", "flac", "-f", "ogg", str(sound)) is None
    data = bytearray(sound.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    sound.write_bytes(data)
    words = ("video", frames, "-o", out, "--duration", 1, "--audio", sound)
    assert main([*map(str, words)]) == 0
    assert f"{out} is written, but ffmpeg says: " in capsys.readouterr().err


def test_a_manifest_gives_the_accepted_pictures_in_the_order_of_items(frames: Path, tmp_path: Path) -> None:
    rows = []
    (tmp_path / "rejected").mkdir()
    for index, (name, accepted) in enumerate((("7.png", True), ("rejected/5.png", False), ("3.png", True))):
        numbered(int(Path(name).stem)).save(tmp_path / name)
        rows.append(record(index, file=name, accepted=accepted))
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for given in (tmp_path, tmp_path / "manifest.jsonl"):
        made(given, "-o", tmp_path / "a.mp4", "--force", "--fps", 2)
        assert numbers_in(read_video(tmp_path / "a.mp4")) == [7] * 4 + [3] * 4, "2 s each"


@pytest.mark.parametrize("damage", ["cut", "bit", "jpeg", "text"])
def test_a_broken_frame_is_named_before_anything_is_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    for number in range(4):
        numbered(number).save(tmp_path / f"{number}.png")
    broken = tmp_path / "2.png"
    data = bytearray(broken.read_bytes())
    if damage == "cut":
        data = data[:-30]
    elif damage == "bit":
        data[len(data) // 2] ^= 1
    elif damage == "jpeg":
        numbered(2).save(tmp_path / "2.jpg", quality=95)
        broken.unlink()
        broken = tmp_path / "2.jpg"
        data = bytearray(broken.read_bytes())
        data = data[: len(data) * 2 // 3]
    else:
        data = bytearray(b"<html>")
    broken.write_bytes(data)
    said = refused(capsys, tmp_path, "-o", tmp_path / "out/a.mp4", code=FAILED)
    assert said.startswith(f"intaglio video: {broken}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "a.avi"), "out: 'a.avi'; allowed: a file that ends with .mp4 or .gif"),
        (("-o", "a.mp4", "--size", "95x64"), "size: 95x64 has an odd side; allowed: even sides"),
        (("-o", "a.mp4", "--size", "huge"), "size: 'huge'; allowed: WIDTHxHEIGHT"),
        (("-o", "a.mp4", "--fps", "0"), "fps: '0'; allowed: 0.1 to 240"),
        (("-o", "a.gif", "--fps", "60"), "fps: '60'; allowed: 0.1 to 50"),
        (("-o", "a.mp4", "--duration", "0.01"), "duration: 0.01 s is less than a frame"),
        (("-o", "a.mp4", "--duration", "inf"), "duration: inf; allowed: a number"),
        (("-o", "a.mp4", "--transition-seconds", "inf"), "transition-seconds: inf; allowed: a number"),
        (
            ("-o", "a.mp4", "--duration", "1", "--transition", "zoom", "--transition-seconds", "1"),
            "transition-seconds: 1 s; allowed: less than --duration, 1 s",
        ),
        (("-o", "a.gif", "--audio", "a.wav"), "audio: a.wav for a GIF"),
        (("-o", "a.gif", "--encoder", "libx264"), "encoder: libx264 for a GIF"),
        (("-o", "a.mp4", "--encoder", "libfoo"), "has no libfoo; allowed: "),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    frames: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, frames, *words)
    assert not list(tmp_path.iterdir())


def test_inputs_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    for given, expected in (
        (tmp_path / "none", "no such picture, folder or manifest"),
        (tmp_path / "*.png", "no pattern that matches a picture"),
        (tmp_path, "holds no picture"),
    ):
        assert f"{given}: " in (said := refused(capsys, given, "-o", out, code=FAILED))
        assert expected in said
    numbered(0).save(tmp_path / "a.png")
    (tmp_path / "text.wav").write_text("no sound")
    said = refused(capsys, tmp_path / "a.png", "-o", out, "--audio", tmp_path / "text.wav", code=FAILED)
    assert f"{tmp_path / 'text.wav'}: has no sound that can be read" in said


def test_a_file_is_overwritten_only_when_asked(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    out.write_text("mine")
    assert f"{out} exists; allowed: another name, or --force" in refused(capsys, frames, "-o", out)
    assert out.read_text() == "mine"
    assert main(["video", str(frames), "-o", str(out), "--force", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{out}\n", "")
    assert read_video(out).codec


def test_an_ffmpeg_that_fails_is_quoted_and_leaves_nothing(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper of the real one, first on PATH, that gives it an option that it does not have."""
    real = find_ffmpeg().path
    wrapper = tmp_path / "bin/ffmpeg"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *rawvideo*) set -- -no_such "$@";; esac\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    said = refused(capsys, frames, "-o", tmp_path / "out/a.mp4", code=FAILED)
    assert "a.mp4: ffmpeg could not write it: Unrecognized option 'no_such'" in said
    assert not list((tmp_path / "out").iterdir())


def test_the_ffmpeg_on_path_is_asked_what_it_has(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it has no H.264 the next one is taken, and asking for H.264 gives the choices."""
    real = find_ffmpeg().path
    wrapper = tmp_path / "bin/ffmpeg"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n{real} "$@" | sed /h264/d\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    said = refused(capsys, frames, "-o", tmp_path / "a.mp4", "--encoder", "libx264")
    assert "has no libx264; allowed: " in said
    assert said.endswith(("libvpx-vp9 or mpeg4", "allowed: mpeg4"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_a_video_that_is_cancelled_leaves_no_file(
    frames: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Stopped as soon as the temporary file is there; ffmpeg ends, too."""
    words = [sys.executable, "-m", "intaglio", "video", str(frames), "-o", str(tmp_path / "a.mp4")]
    long = ["--duration", "600", "--ken-burns", "0.2", "--size", "640x480"]
    with subprocess.Popen(
        [*words, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
