"""Control maps as PNG files, and prompts that fit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniature.architecture import CONTROL_TYPES
from miniature.controls import main
from miniature.dataset import held_out_scene
from miniature.world import control_map, render


def test_each_kind_is_written_with_its_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "2", "--out", str(tmp_path)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {Path(file).name for file, _ in lines} == {
        f"{kind}-{index}.png" for kind in CONTROL_TYPES for index in (0, 1)
    }
    scene, _ = held_out_scene(1)
    depth = np.asarray(Image.open(tmp_path / "depth-1.png"))
    assert (depth == control_map(scene, render(scene), "depth")).all()
    prompts = {Path(file).name: prompt for file, prompt in lines}
    assert prompts["canny-1.png"] == prompts["depth-1.png"] != prompts["depth-0.png"]


@pytest.mark.parametrize(
    ("arguments", "says"), [(["sketch"], "must be one of pose"), (["--count", "0"], "must be at least 1")]
)
def test_what_does_not_exist_is_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
