"""Which stages of the miniature's training are done."""

from __future__ import annotations

import os
from pathlib import Path

from miniature.train import STAGES, Stage, is_done
from miniature.training.settings import Settings


def nothing(settings: Settings) -> None:
    pass


def test_weights_older_than_the_stage_before_are_made_again(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    settings = Settings(work=tmp_path)
    stages = {"before": Stage(nothing, lambda _: [before]), "after": Stage(nothing, lambda _: [after])}
    after.touch()
    assert is_done("after", settings, stages)
    assert not is_done("before", settings, stages)
    before.touch()
    os.utime(after, (0, 0))
    assert is_done("before", settings, stages)
    assert not is_done("after", settings, stages)


def test_every_stage_leaves_files_and_none_is_left_by_two(tmp_path: Path) -> None:
    settings = Settings(work=tmp_path)
    files = [path for stage in STAGES.values() for path in stage.outputs(settings)]
    assert len(files) == len(set(files)) >= len(STAGES)
