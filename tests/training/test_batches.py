"""Data order: a pure function of seed and step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from intaglio_train import DataConfig
from intaglio_train.batches import BucketOrder, Shard, Stream, caption_table
from intaglio_train.buckets import BucketPlacing
from intaglio_train.chance import Chance
from intaglio_train.data import open_dataset


@pytest.fixture
def stream(arrays: Path) -> Stream:
    dataset = open_dataset(DataConfig(folder=arrays, control="pose"), (64, 64), control=True)
    return Stream(
        dataset, caption_table(dataset.captions), batch_size=4, chance=Chance(seed=3), reads_controls=True
    )


def test_an_epoch_shows_every_sample_once(stream: Stream) -> None:
    shown = [index for number in range(3) for index in stream.choose(number)[1]]
    assert sorted(shown[:6]) == sorted(shown[6:]) == [0, 1, 2, 3, 4, 5]
    assert shown[:6] != shown[6:]


def test_batches_do_not_depend_on_where_a_run_began(stream: Stream) -> None:
    through, resumed = islice(stream.batches(0), 2, 4), islice(stream.batches(2), 2)
    for ours, theirs in zip(through, resumed, strict=True):
        assert ours.indices.equal(theirs.indices)
        assert ours.captions.equal(theirs.captions)
        assert ours.images is not None
        assert theirs.images is not None
        assert ours.images.equal(theirs.images)


def test_a_batch_holds_the_samples_it_names(stream: Stream) -> None:
    batch = stream.batch(1)
    assert batch.images is not None
    assert batch.controls is not None
    np.testing.assert_array_equal(batch.images.numpy(), stream.dataset.images(batch.indices.tolist()))
    np.testing.assert_array_equal(batch.controls.numpy(), stream.dataset.controls(batch.indices.tolist()))
    for index, caption in zip(batch.indices.tolist(), batch.captions.tolist(), strict=True):
        assert stream.captions.texts[caption] in stream.dataset.captions[index]


def test_seed_and_salt_set_streams_apart(stream: Stream) -> None:
    streams = [replace(stream, chance=chance) for chance in (Chance(3), Chance(4), Chance(3, salt=1))]
    chosen = {tuple(one.choose(0)[1] + one.choose(1)[1]) for one in streams}
    noises = {one.batch(0).noise.sum().item() for one in streams}
    assert len(chosen) == len(noises) == 3


def test_all_alternatives_are_used_and_captions_dropped_as_often_as_asked(stream: Stream) -> None:
    dropping = replace(
        stream, chance=Chance(seed=3, caption_dropout=0.25), reads_images=False, reads_controls=False
    )
    counts = Counter(caption for number in range(500) for caption in dropping.batch(number).captions.tolist())
    assert set(counts) == {*range(len(stream.captions.texts)), stream.captions.dropped}
    assert 0.22 < counts[stream.captions.dropped] / 2000 < 0.28
    kept = [caption for number in range(20) for caption in stream.batch(number).captions.tolist()]
    assert stream.captions.dropped not in kept


@pytest.mark.parametrize("number", [0, 5])
def test_shards_are_together_what_one_process_would_see(stream: Stream, number: int) -> None:
    whole = stream.batch(number)
    shards = [replace(stream, batch_size=2, shard=Shard(process, 2)).batch(number) for process in range(2)]
    for name in ("indices", "captions", "noise", "times", "shares", "images", "controls"):
        assert torch.cat([getattr(shard, name) for shard in shards]).equal(getattr(whole, name)), name


def test_noise_is_normal_and_times_are_uniform(stream: Stream) -> None:
    offset = replace(stream, chance=Chance(seed=3, noise_offset=0.5, times=range(10)), batch_size=500)
    batch = replace(offset, reads_images=False, reads_controls=False).batch(0)
    assert batch.noise.shape == (500, 4, 8, 8)
    means = batch.noise.mean(dim=(2, 3))
    assert means.std().item() == pytest.approx(np.sqrt(0.5**2 + 1 / 64), rel=0.05)
    assert (batch.noise - means[:, :, None, None]).std().item() == pytest.approx(np.sqrt(63 / 64), rel=0.02)
    assert set(batch.times.tolist()) == set(range(10))


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_every_item_of_every_bucket_is_used_equally_often(
    counts: list[int], batch_size: int, seed: int
) -> None:
    order = BucketOrder(tuple(counts), batch_size, Chance(seed))
    epochs = 2 * batch_size  # a whole number of batches for every bucket
    used: Counter[tuple[int, int]] = Counter()
    for number in range(epochs * sum(counts) // batch_size):
        bucket, items = order.batch(number)
        assert len(items) == batch_size
        used.update((bucket, item) for item in items)
    assert used == {(bucket, item): epochs for bucket, count in enumerate(counts) for item in range(count)}


def test_repeats_and_sizes_of_a_folder_decide_its_batches(tmp_path: Path) -> None:
    sizes = {"2_tall": (32, 64), "1_wide": (64, 32)}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", size).save(tmp_path / name / f"{index}.png")
    placing = BucketPlacing((48, 48), 16, 16, 96, upscale=True)
    dataset = open_dataset(DataConfig(folder=tmp_path), (48, 48), placing=placing)
    stream = Stream(dataset, caption_table(dataset.captions), batch_size=3, chance=Chance(seed=1))
    counts: Counter[str] = Counter()
    for number in range(6):
        batch = stream.batch(number)
        assert batch.images is not None
        folders = {dataset.folder(index) for index in batch.indices.tolist()}
        assert len(folders) == 1, "a batch has images of one size"
        assert tuple(batch.images.shape[1:3]) == tuple(reversed(sizes[folders.copy().pop()]))
        assert tuple(batch.noise.shape[2:]) == tuple(side // 8 for side in batch.images.shape[1:3])
        counts[folders.pop()] += 1
    assert counts == {"2_tall": 4, "1_wide": 2}
