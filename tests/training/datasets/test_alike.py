"""Which images show nearly the same."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

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


def test_a_damaged_image_is_in_no_group_with_black_ones() -> None:
    damaged = [Measured(Path(name), problem="it is cut off") for name in ("a.png", "b.png")]
    found = names_of_groups([damaged[0], *images(0, 0), damaged[1]])
    assert {str(path): name for path, name in found.items()} == {
        "a.png": "a.png",
        "0.png": "0.png",
        "1.png": "0.png",
        "b.png": "b.png",
    }


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_what_a_search_from_image_to_image_finds(seed: int) -> None:
    """Chains of a few bits a step, in a mixed order, so that groups meet late."""
    chance = random.Random(seed)
    hashes = []
    for _ in range(12):
        value = chance.getrandbits(64)
        for _ in range(chance.randrange(1, 20)):
            hashes.append(value)
            for _ in range(chance.randrange(2 + NEAR)):
                value ^= 1 << chance.randrange(64)
    chance.shuffle(hashes)
    expected: dict[int, int] = {}
    for start in range(len(hashes)):
        waiting = [] if start in expected else [start]
        while waiting:
            index = waiting.pop()
            expected[index] = start
            waiting += [
                other
                for other in range(len(hashes))
                if other not in expected and (hashes[index] ^ hashes[other]).bit_count() <= NEAR
            ]
    assert len(set(expected.values())) > 12
    assert groups(*hashes) == [f"{expected[index]}.png" for index in range(len(hashes))]


def test_many_equal_images_and_a_long_chain_take_seconds() -> None:
    """A frame of a parked car, again and again; and a drive whose frames lead from one to the next."""
    chance = random.Random(0)
    drive = [0]
    while len(drive) < 4000:
        drive.append(drive[-1] ^ (1 << chance.randrange(64)))
    began = time.process_time()
    assert set(groups(*[ALL] * 30_000)) == {"0.png"}
    assert set(groups(*drive)) == {"0.png"}
    assert time.process_time() - began < 20


def test_bits_of_every_part_of_a_hash_count() -> None:
    for bit in range(0, 64, 7):
        assert groups(0, low(NEAR + 1) << min(bit, 59)) == ["0.png", "1.png"]
