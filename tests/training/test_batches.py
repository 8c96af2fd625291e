"""Data order: a pure function of seed and step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from intaglio_train import DataConfig
from intaglio_train.batches import Stream, caption_table
from intaglio_train.data import open_dataset
from intaglio_train.learning_rate import learning_rate_factor


@pytest.fixture
def stream(arrays: Path) -> Stream:
    dataset = open_dataset(DataConfig(folder=arrays, control="pose"), (64, 64), control=True)
    return Stream(dataset, caption_table(dataset.captions), batch_size=4, seed=3, reads_controls=True)


def test_an_epoch_shows_every_sample_once(stream: Stream) -> None:
    shown = [index for number in range(3) for index in stream.choose(number)[0]]
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
    chosen = [
        tuple(one.choose(0)[0] + one.choose(1)[0])
        for one in (stream, replace(stream, seed=4), replace(stream, salt=1))
    ]
    assert len(set(chosen)) == 3


def test_all_alternatives_are_used_and_captions_dropped_as_often_as_asked(stream: Stream) -> None:
    counts = Counter(
        caption
        for number in range(500)
        for caption in replace(stream, caption_dropout=0.25).choose(number)[1]
    )
    assert set(counts) == {*range(len(stream.captions.texts)), stream.captions.dropped}
    assert 0.22 < counts[stream.captions.dropped] / 2000 < 0.28
    assert all(
        caption != stream.captions.dropped for number in range(20) for caption in stream.choose(number)[1]
    )


def test_learning_rate_warms_up_then_holds_or_falls_to_zero() -> None:
    cosine = [learning_rate_factor(step, steps=12, warmup=2, schedule="cosine") for step in range(13)]
    assert cosine[:3] == [0.5, 1.0, 1.0]
    assert cosine[7] == pytest.approx(0.5)
    assert cosine[12] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in pairwise(cosine[2:]))
    assert learning_rate_factor(11, steps=12, warmup=2, schedule="constant") == 1.0
