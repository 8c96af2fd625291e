"""Which images show nearly the same."""

from __future__ import annotations

from pathlib import Path

from intaglio_train.datasets.alike import NEAR, names_of_groups
from intaglio_train.datasets.measured import Measured

ALL = (1 << 64) - 1


def images(*hashes: int) -> list[Measured]:
    return [Measured(Path(f"{index}.png"), hash=value) for index, value in enumerate(hashes)]


def groups(*hashes: int) -> list[str]:
    return list(names_of_groups(images(*hashes)).values())


def low(bits: int) -> int:
    """A hash with so many bits set, the lowest ones."""
    return (1 << bits) - 1


def test_images_are_of_one_group_up_to_the_distance() -> None:
    assert groups(0, low(NEAR), ALL) == ["0.png", "0.png", "2.png"]
    assert groups(0, low(NEAR + 1)) == ["0.png", "1.png"]


def test_an_image_between_two_joins_them() -> None:
    """The first and the second are too far apart, and the third is near to both."""
    assert groups(0, low(2 * NEAR), low(NEAR)) == ["0.png"] * 3
    assert groups(ALL, low(2 * NEAR), 0, low(NEAR)) == ["0.png", "1.png", "1.png", "1.png"]


def test_bits_of_every_part_of_a_hash_count() -> None:
    for bit in range(0, 64, 7):
        assert groups(0, low(NEAR + 1) << min(bit, 59)) == ["0.png", "1.png"]
