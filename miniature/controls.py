"""Control maps of scenes that the miniature was not trained on, as PNG files, each with a fitting prompt.

python -m miniature.controls                          # two maps of each kind, to out/controls
python -m miniature.controls canny depth --count 4    # four of these two kinds
intaglio generate PROMPT --control type=canny,image=out/controls/canny-0.png

The maps come from the scene's ground truth; nothing is painted. stdout gets one line a map: its file, then
the prompt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from miniature.architecture import CONTROL_TYPES
from miniature.captions import caption
from miniature.dataset import held_out_scene
from miniature.world import control_map, render

__all__ = ["write_controls"]

_FOLDER: Final = Path("out/controls")


def write_controls(kinds: Iterable[str], count: int, folder: Path) -> Iterator[tuple[Path, str]]:
    """Write `count` maps of each of `kinds` as KIND-N.png; yields each file and a prompt for its scene."""
    kinds = list(kinds)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene, rng = held_out_scene(index)
        rendered = render(scene)
        prompt = caption(rng, scene, omit=0)
        for kind in kinds:
            path = folder / f"{kind}-{index}.png"
            Image.fromarray(control_map(scene, rendered, kind)).save(path)
            yield path, prompt


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature.controls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"{', '.join(CONTROL_TYPES)}; all by default"
    )
    parser.add_argument("--count", type=int, default=2, help="maps of each kind (2)")
    parser.add_argument("--out", type=Path, default=_FOLDER, help=f"folder to write ({_FOLDER})")
    given = parser.parse_args(arguments)
    unknown = [kind for kind in given.kinds if kind not in CONTROL_TYPES]
    if unknown:
        parser.error(f"KIND {unknown[0]!r}: must be one of {', '.join(CONTROL_TYPES)}")
    if given.count < 1:
        parser.error(f"--count {given.count}: must be at least 1")
    for path, prompt in write_controls(given.kinds or CONTROL_TYPES, given.count, given.out):
        sys.stdout.write(f"{path}\t{prompt}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
