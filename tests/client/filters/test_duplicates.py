"""Pictures that look alike."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.contract.filters import DuplicatesFilter
from intaglio.imaging.measures import perceptual_hash
from intaglio_client.filters.duplicates import Duplicates
from intaglio_client.filters.verdict import Candidate, Remembering
from miniature.dataset import held_out_scene
from miniature.world import render

PICTURES = [render(held_out_scene(index)[0]).picture for index in range(12)]


def as_jpeg(pixels: NDArray[np.uint8], *, quality: int, share: float = 1.0) -> NDArray[np.uint8]:
    image = PIL.Image.fromarray(pixels)
    image = image.resize((int(image.width * share), int(image.height * share)))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(encoded), np.uint8)


def test_the_hash_outlives_compression_and_scaling_and_tells_pictures_apart() -> None:
    hashes = [perceptual_hash(pixels) for pixels in PICTURES]
    for pixels, known in zip(PICTURES, hashes, strict=True):
        assert (perceptual_hash(as_jpeg(pixels, quality=40, share=0.6)) ^ known).bit_count() <= 4
    others = [(one ^ other).bit_count() for i, one in enumerate(hashes) for other in hashes[:i]]
    assert min(others) > 6


def test_the_second_of_two_pictures_is_rejected_and_names_the_first() -> None:
    judge = Duplicates(DuplicatesFilter(kind="duplicates"))
    assert judge(Candidate(PICTURES[0], "a")).accepted
    assert judge(Candidate(PICTURES[1], "b")).accepted
    said = judge(Candidate(as_jpeg(PICTURES[0], quality=60), "c"))
    assert not said.accepted
    assert said.scores["nearest"] == "a"
    assert said.reason.endswith("bits from a")
    exact = Duplicates(DuplicatesFilter(kind="duplicates", distance=0))
    assert exact(Candidate(PICTURES[0], "a")).accepted
    assert not exact(Candidate(PICTURES[0], "b")).accepted


def test_a_filter_that_is_told_its_verdicts_goes_on_as_if_it_had_judged() -> None:
    first, second = (Duplicates(DuplicatesFilter(kind="duplicates")) for _ in range(2))
    assert isinstance(second, Remembering)
    for name, pixels in zip("abca", [*PICTURES[:3], PICTURES[0]], strict=True):
        second.recall(name, first(Candidate(pixels, name)))
    for pixels in (PICTURES[1], PICTURES[5]):
        assert first(Candidate(pixels, "next")) == second(Candidate(pixels, "next"))
