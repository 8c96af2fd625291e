"""The commands of docs/video.md run as they are written."""

from __future__ import annotations

import json
from pathlib import Path

from ...pages import run_shell
from ..batch.records import record
from .decoding import numbered, numbers_in, read_video
from .sounds import write_tone


def test_the_page_of_videos(tmp_path: Path) -> None:
    size = (128, 96)
    (tmp_path / "frames").mkdir()
    (tmp_path / "drawn").mkdir()
    for number in range(12):
        numbered(number, size).save(tmp_path / f"frames/frame{number}.png")
    numbered(40, size).save(tmp_path / "drawn/0.png")
    (tmp_path / "drawn/manifest.jsonl").write_text(json.dumps(record(0, file="0.png")) + "\n")
    numbered(1, size).save(tmp_path / "first.png")
    numbered(2, size).save(tmp_path / "second.png")
    write_tone(tmp_path / "tone.wav")
    assert run_shell("docs/video.md", tmp_path) == 1
    assert numbers_in(read_video(tmp_path / "walk.mp4")) == list(range(12))
    assert len(read_video(tmp_path / "drawn.mp4").frames) == 36
    assert len(read_video(tmp_path / "loop.gif").frames) == 10
    pair = read_video(tmp_path / "pair.mp4")
    assert (len(pair.frames), "Audio: aac" in pair.said) == (144, True)
