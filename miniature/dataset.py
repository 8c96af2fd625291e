"""Render training sets: folders of images.npy, captions.json and controls_<type>.npy for `intaglio train`.

    python -m miniature.dataset base OUT --count 48000
    python -m miniature.dataset controls OUT --count 12000
    python -m miniature.dataset lessons OUT --count 1500       # one folder a LoRA
    python -m miniature.dataset examples                       # the PNGs of miniature/examples/night
    python -m miniature.dataset poses                          # the pose library, configs/poses

A sample is a function of its number alone, so a set can be rendered again anywhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from miniature.architecture import CONTROL_TYPES, IMAGE_SIZE
from miniature.captions import caption
from miniature.labels import labels_of
from miniature.skeleton import write_library
from miniature.styles import LESSONS
from miniature.world import Scene, control_map, render, sample_scene

CAPTIONS_PER_IMAGE = 4
_CHUNK = 250
_HELD_OUT = 1 << 40  # seeds from here on are never trained on
Images = dict[str, NDArray[np.uint8]]
Labels = NDArray[np.int64]


def training_scene(index: int) -> tuple[Scene, np.random.Generator]:
    """Scene number `index` of the training set, and the generator that goes on to write its captions."""
    rng = np.random.default_rng(index)
    return sample_scene(rng), rng


def held_out_scene(index: int) -> tuple[Scene, np.random.Generator]:
    """Scene number `index` of the evaluation set."""
    rng = np.random.default_rng(_HELD_OUT + index)
    return sample_scene(rng), rng


def lesson_generator(index: int) -> np.random.Generator:
    """Generator of sample number `index` of every LoRA's set.

    It is a branch of its own, so that no scene has the same seed.
    """
    return np.random.default_rng(np.random.SeedSequence(index, spawn_key=(7,)))


def _chunk_of_scenes(controls: bool, indices: range) -> tuple[Images, list[list[str]], list[Labels]]:
    kinds = CONTROL_TYPES if controls else ()
    arrays = {
        name: np.empty((len(indices), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for name in ("images", *kinds)
    }
    texts, labels = [], []
    for row, index in enumerate(indices):
        scene, rng = training_scene(index)
        rendered = render(scene)
        arrays["images"][row] = rendered.picture
        for kind in kinds:
            arrays[kind][row] = control_map(scene, rendered, kind)
        texts.append([caption(rng, scene) for _ in range(CAPTIONS_PER_IMAGE)])
        labels.append(labels_of(scene))
    return arrays, texts, labels


def _chunk_of_lesson(name: str, indices: range) -> tuple[Images, list[list[str]], list[Labels]]:
    samples = [LESSONS[name].sample(lesson_generator(index)) for index in indices]
    return {"images": np.stack([image for image, _ in samples])}, [[text] for _, text in samples], []


def write_arrays(
    out: Path, count: int, *, controls: bool = False, labels: bool = False, lesson: str | None = None
) -> None:
    """Render `count` samples into `out`, in parallel. A set is finished when captions.json is there."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "captions.json").exists():
        return
    names = ("images", *(CONTROL_TYPES if controls else ()))
    files = {name: out / ("images.npy" if name == "images" else f"controls_{name}.npy") for name in names}
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    arrays = {name: np.lib.format.open_memmap(path, "w+", np.uint8, shape) for name, path in files.items()}  # type: ignore[no-untyped-call]
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    work = partial(_chunk_of_lesson, lesson) if lesson else partial(_chunk_of_scenes, controls)
    texts: list[list[str]] = []
    classes: list[Labels] = []
    # Spawned, not forked: torch and OpenCV have started threads, and a fork can wait forever on a lock that
    # one of them held.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=fresh, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        results = track(pool.map(work, chunks), f"render {out.name}", len(chunks))
        for chunk, (images, captions, chunk_classes) in zip(chunks, results, strict=True):
            for name, rows in images.items():
                arrays[name][chunk.start : chunk.stop] = rows
            texts += captions
            classes += chunk_classes
    for array in arrays.values():
        array.flush()
    if labels:
        np.save(out / "labels.npy", np.stack(classes))
    (out / "captions.json").write_text(json.dumps(texts))


def write_lessons(out: Path, count: int) -> None:
    """One folder of `count` samples a LoRA."""
    for name in LESSONS:
        write_arrays(out / name, count, lesson=name)


def write_examples(out: Path, count: int = 16) -> None:
    """PNG + TXT pairs of the "night" lesson: what a user's own training folder looks like."""
    out.mkdir(parents=True, exist_ok=True)
    images, texts, _ = _chunk_of_lesson("night", range(count))
    for index in range(count):
        cv2.imwrite(str(out / f"{index:02d}.png"), images["images"][index][..., ::-1])
        (out / f"{index:02d}.txt").write_text(texts[index][0] + "\n")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("base", "controls", "lessons", "examples", "poses"))
    parser.add_argument("out", type=Path, nargs="?", default=None)
    parser.add_argument("--count", type=int, default=None)
    arguments = parser.parse_args()
    out = arguments.out or Path("build/miniature/data")
    if arguments.what == "examples":
        write_examples(arguments.out or Path(__file__).parent / "examples" / "night")
    elif arguments.what == "poses":
        write_library(arguments.out or Path("configs/poses"))
    elif arguments.what == "lessons":
        write_lessons(out, arguments.count or 1500)
    else:
        write_arrays(out / arguments.what, arguments.count or 12000, controls=arguments.what == "controls")


if __name__ == "__main__":
    main()
