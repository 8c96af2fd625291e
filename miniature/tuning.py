"""Held-out scenes for `intaglio tune` and `intaglio bench quality`, and the rules as their judge.

    python -m miniature.tuning out/scenes --count 60 --mara 20
    intaglio tune configs/miniature.yaml --prompts out/scenes/scenes.yaml --judge miniature.tuning:judge

Every scene has its own pose as its control, drawn as a picture, and the guidance of `miniature.evaluate`.
`--mara` adds scenes of the character with her LoRA, which are judged by her colours.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from miniature.captions import VERBS
from miniature.judging import judge_picture, mara_share
from miniature.painter import GUIDANCE, cases, held_out_case
from miniature.world import control_map

__all__ = ["judge", "main", "write_scenes"]

_PREFIX: Final = "held-out-"
_MARA: Final = "mara-"
_FILE: Final = "scenes.yaml"
_case = functools.cache(held_out_case)


def write_scenes(folder: Path, count: int, *, mara: int = 0) -> Path:
    """Write `count` scenes, `mara` scenes of Mara and the pictures of their poses into `folder`; returns the
    file of scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for index, case in enumerate(cases(max(count, mara))):
        pose = f"pose-{index:03d}.png"
        Image.fromarray(control_map(case.scene, case.rendered, "pose")).save(folder / pose)
        common = {"guidance_scale": GUIDANCE, "controls": [{"type": "pose", "image": pose}]}
        if index < count:
            entries.append({"name": f"{_PREFIX}{index:03d}", "prompt": case.prompt, **common})
        if index < mara:
            prompt = f"mara {VERBS[case.scene.family][0]} in a room"
            entries.append(
                {"name": f"{_MARA}{index:03d}", "prompt": prompt, "loras": {"mara": None}, **common}
            )
    path = folder / _FILE
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


def judge(name: str, picture: NDArray[np.uint8]) -> Mapping[str, float]:
    """Shares of attire, place and joints that are as scene `name` asks; of a scene of Mara `identity`, the
    share of the picture in her colours. Nothing for a scene that is not of `write_scenes`.
    """
    if name.startswith(_MARA):
        return {"identity": mara_share(picture)}
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
    parser.add_argument("--mara", type=int, default=0, help="how many of Mara beside them (0)")
    given = parser.parse_args(arguments)
    print(write_scenes(given.folder, given.count, mara=given.mara))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
