"""Held-out scenes for `intaglio tune`, and the rules as its judge.

    python -m miniature.tuning out/scenes --count 60
    intaglio tune configs/miniature.yaml --prompts out/scenes/scenes.yaml --judge miniature.tuning:judge

Every scene has its own pose as its control, drawn as a picture, and the guidance of `miniature.evaluate`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from miniature.judging import judge_picture
from miniature.painter import GUIDANCE, cases, held_out_case
from miniature.world import control_map

__all__ = ["judge", "main", "write_scenes"]

_PREFIX: Final = "held-out-"
_FILE: Final = "scenes.yaml"
_case = functools.cache(held_out_case)


def write_scenes(folder: Path, count: int) -> Path:
    """Write `count` scenes and the pictures of their poses into `folder`; returns the file of scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, case in enumerate(cases(count)):
        name = f"{_PREFIX}{index:03d}"
        Image.fromarray(control_map(case.scene, case.rendered, "pose")).save(folder / f"{name}.png")
        controls = [{"type": "pose", "image": f"{name}.png"}]
        entries.append(
            {"name": name, "prompt": case.prompt, "guidance_scale": GUIDANCE, "controls": controls}
        )
    path = folder / _FILE
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


def judge(name: str, picture: NDArray[np.uint8]) -> Mapping[str, float]:
    """Shares of attire, place and joints that are as scene `name` asks; nothing for a scene that is not of
    `write_scenes`.
    """
    number = name.removeprefix(_PREFIX)
    if number == name or not number.isdecimal():
        return {}
    return judge_picture(picture, _case(int(number)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature.tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the scenes are written")
    parser.add_argument("--count", type=int, default=16, help="how many (16)")
    given = parser.parse_args(arguments)
    print(write_scenes(given.folder, given.count))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
