"""Aspect-ratio buckets are those of kohya's scripts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio_train.buckets import BucketPlacing, CropPlacing, ExactPlacing, Size, bucket_sizes

SIDES = st.integers(64, 4000)
SIZES = st.tuples(SIDES, SIDES)
SDXL = BucketPlacing((1024, 1024), 64, 512, 2048, upscale=True)
DOWNWARDS = BucketPlacing((1024, 1024), 64, 512, 2048, upscale=False)


def kohyas_resolutions(area_of: Size, smallest: int, largest: int, step: int) -> set[Size]:
    """`make_bucket_resolutions` of kohya's sd-scripts, in its own words."""
    area = area_of[0] * area_of[1]
    width = int(math.sqrt(area) // step) * step
    found = {(width, width)}
    width = smallest
    while width <= largest:
        height = min(largest, int((area // width) // step) * step)
        if height >= smallest:
            found |= {(width, height), (height, width)}
        width += step
    return found


@pytest.mark.parametrize(
    ("resolution", "smallest", "largest"), [((1024, 1024), 512, 2048), ((512, 512), 256, 1024)]
)
def test_sizes_are_kohyas(resolution: Size, smallest: int, largest: int) -> None:
    found = bucket_sizes(resolution, step=64, smallest=smallest, largest=largest)
    assert set(found) == kohyas_resolutions(resolution, smallest, largest, 64)


def test_sizes_are_those_that_sdxl_was_trained_on() -> None:
    found = bucket_sizes((1024, 1024), step=64, smallest=512, largest=2048)
    assert {(512, 2048), (640, 1536), (832, 1216), (1024, 1024), (1216, 832), (2048, 512)} <= set(found)


@given(image=SIZES)
def test_an_image_goes_to_the_bucket_of_the_nearest_aspect(image: Size) -> None:
    placement = SDXL.place(image)
    sizes = bucket_sizes((1024, 1024), step=64, smallest=512, largest=2048)
    aspect = image[0] / image[1]
    error = abs(placement.size[0] / placement.size[1] - aspect)
    assert placement.size in sizes
    assert error == min(abs(width / height - aspect) for width, height in sizes) or image in sizes
    assert placement.resized[0] == placement.size[0] or placement.resized[1] == placement.size[1]
    assert placement.resized[0] >= placement.size[0]
    assert placement.resized[1] >= placement.size[1]


def kohyas_size_without_upscaling(image: Size, area_of: Size, step: int) -> tuple[Size, Size]:
    """The part of kohya's `BucketManager.select_bucket` for `bucket_no_upscale`, in its own words."""

    def stepped(side: float) -> int:
        whole = int(side + 0.5)
        return whole - whole % step

    area = area_of[0] * area_of[1]
    aspect = image[0] / image[1]
    resized = image
    if image[0] * image[1] > area:
        width = math.sqrt(area * aspect)
        height = area / width
        rounded = stepped(width)
        by_width = rounded / stepped(rounded / aspect)
        tall = stepped(height)
        by_height = stepped(tall * aspect) / tall
        if abs(by_width - aspect) < abs(by_height - aspect):
            resized = (rounded, int(rounded / aspect + 0.5))
        else:
            resized = (int(tall * aspect + 0.5), tall)
    return resized, (resized[0] - resized[0] % step, resized[1] - resized[1] % step)


@given(image=st.tuples(st.integers(300, 3000), st.integers(300, 3000)))
def test_without_upscaling_buckets_are_kohyas(image: Size) -> None:
    resized, size = kohyas_size_without_upscaling(image, (1024, 1024), 64)
    placement = DOWNWARDS.place(image)
    assert (placement.resized, placement.size) == (resized, size)
    assert placement.resized[0] <= image[0]
    assert placement.resized[1] <= image[1]


def test_the_corner_is_where_the_cut_lies_in_the_resized_image() -> None:
    placement = SDXL.place((3000, 2000))  # scaled by 832 / 2000
    assert (placement.size, placement.resized, placement.corner) == ((1216, 832), (1248, 832), (0, 16))
    assert CropPlacing((64, 64)).place((64, 128)).corner == (32, 0)
    assert DOWNWARDS.place((700, 650)).corner == (5, 30)


def test_sizes_of_the_run_and_of_buckets_stay_as_they_are() -> None:
    for size in ((1024, 1024), (832, 1216)):
        assert SDXL.place(size).resized == SDXL.place(size).size == size
    wide = BucketPlacing((1280, 720), 64, 320, 2560, upscale=True)
    assert wide.place((1280, 720)).size == wide.place((1920, 1080)).size == (1280, 720)


def test_what_cannot_be_placed_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"is 4000x30, too small or narrow for a bucket with sides in steps of 64"
    ):
        DOWNWARDS.place((4000, 30))
    with pytest.raises(ValueError, match=r"is 64x48; resolution asks for 64x64 \(or set fit: buckets"):
        ExactPlacing((64, 64)).place((64, 48))
