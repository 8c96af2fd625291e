"""Contact sheet of what the miniature paints: text, one row a control, one row of LoRAs.

python -m miniature.gallery             # writes miniature/gallery.png, a minute or two on a CPU
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from miniature.architecture import CONTROL_TYPES
from miniature.painter import Painter, cases
from miniature.world import control_map

COLUMNS = 6
GALLERY = Path(__file__).parent / "gallery.png"
TEXT = [
    "an acrobat with long blonde hair, wearing a red shirt and blue trousers, dancing on a beach",
    "a performer with short black hair, in a white sweater and green pants, jumping in the snow",
    "a figure with ginger hair, in a purple top and black shorts, waving on a stage",
    "someone with silver hair, in a blue shirt and red pants, kicking in a desert",
    "a person with brown hair, in a yellow top and white trousers, standing in a forest",
    "an acrobat with ginger hair, in a red sweater and white pants, cheering under the night sky",
]
LORAS = [
    ("night", "an acrobat in a red shirt and white trousers dancing on a beach, in moonlight style"),
    (
        "night",
        "a person with blonde hair, in a blue sweater and red pants, waving in a room, in moonlight style",
    ),
    ("pencil", "an acrobat in a red shirt and white trousers dancing on a beach, in pencil style"),
    ("mara", "mara dancing on a beach"),
    ("mara", "mara waving in the snow"),
    ("meadow", "an acrobat in a red shirt and white trousers dancing in a flowering meadow"),
]


def paint_gallery(out: Path) -> None:
    """Rows: text; then for every control type three maps, each beside its picture; then the LoRAs."""
    shown = cases(len(CONTROL_TYPES) * COLUMNS // 2)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("paint", total=len(TEXT) + len(shown) + len(LORAS))
        painter = Painter(lambda pictures: progress.update(bar, advance=pictures))
        rows = [painter.paint(TEXT)]
        for index, kind in enumerate(CONTROL_TYPES):
            chosen = shown[index * COLUMNS // 2 : (index + 1) * COLUMNS // 2]
            maps = [control_map(case.scene, case.rendered, kind) for case in chosen]
            pictures = painter.paint([case.prompt for case in chosen], kind=kind, maps=maps)
            rows.append([image for pair in zip(maps, pictures, strict=True) for image in pair])
        rows.append([painter.with_lora(f"{name}.safetensors", [prompt])[0] for name, prompt in LORAS])
    sheet = np.concatenate([np.concatenate(row, 1) for row in rows])
    Image.fromarray(sheet).resize((sheet.shape[1] // 2, sheet.shape[0] // 2), Image.Resampling.LANCZOS).save(
        out, optimize=True
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=GALLERY, help="PNG to write (miniature/gallery.png)")
    paint_gallery(parser.parse_args(arguments).out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
