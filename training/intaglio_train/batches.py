"""Which samples, captions, noise and times each step sees: a pure function of (seed, step), so that a resumed
run sees what it would have seen, and several processes see together what one would.

`N` samples, `B` of a batch of this process, `U` different captions, `h = H/8`, `w = W/8`. Images are read one
batch ahead in a thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from intaglio_train.buckets import Size
from intaglio_train.chance import Chance
from intaglio_train.data import Dataset, buckets_of

__all__ = ["Batch", "BucketOrder", "CaptionTable", "Shard", "Stream", "caption_table"]


@dataclass(frozen=True)
class CaptionTable:
    """Every different caption once, the samples' alternatives as ids into it, and the id `dropped` that
    stands for no caption.
    """

    texts: list[str]
    alternatives: list[tuple[int, ...]]

    @property
    def dropped(self) -> int:
        return len(self.texts)


def caption_table(captions: Sequence[tuple[str, ...]]) -> CaptionTable:
    """Number the captions in order of appearance."""
    ids: dict[str, int] = {}
    alternatives = []
    for texts in captions:
        alternatives.append(tuple(ids.setdefault(text, len(ids)) for text in texts))
    return CaptionTable(list(ids), alternatives)


@dataclass(frozen=True)
class Batch:
    """Host tensors of one batch; all its images have one size."""

    indices: torch.Tensor  # [B] int64, samples
    captions: torch.Tensor  # [B] int64, ids into the caption table
    noise: torch.Tensor  # [B,C,h,w] fp32
    times: torch.Tensor  # [B] int64
    shares: torch.Tensor  # [B] fp32 from 0 to 1, a chance of each image beside noise and time
    images: torch.Tensor | None  # [B,H,W,3] uint8; none when latents are cached
    controls: torch.Tensor | None  # [B,H,W,3] uint8; none without control or when they are cached


@dataclass(frozen=True)
class Shard:
    """A process of those that share a run."""

    process: int = 0
    processes: int = 1


@dataclass(frozen=True)
class BucketOrder:
    """Batches of one bucket each, in an endless sequence in which all items are used equally often.

    Every bucket is read in epochs of a new permutation each, without a gap between them, so every batch is
    full and the items that an epoch leaves over begin the bucket's next batch. In the first `e` epochs a
    bucket of `n` items has `e * n / batch_size` batches, rounded; within an epoch the batches of all buckets
    are shuffled.
    """

    counts: tuple[int, ...]
    """Items of every bucket."""
    batch_size: int
    chance: Chance

    def batch(self, number: int) -> tuple[int, list[int]]:
        """The bucket of batch `number`, and which of the bucket's items it holds."""
        epoch = self._epoch_of(number)
        used = [self._batches_before(epoch, count) for count in self.counts]
        coming = [self._batches_before(epoch + 1, count) for count in self.counts]
        buckets = np.repeat(np.arange(len(self.counts)), np.subtract(coming, used))
        shuffled = self.chance.batch_order(epoch, buckets)[: number - sum(used) + 1]
        bucket = int(shuffled[-1])
        place = used[bucket] + int((shuffled == bucket).sum()) - 1
        return bucket, self._items(bucket, place * self.batch_size)

    def _items(self, bucket: int, first: int) -> list[int]:
        count = self.counts[bucket]
        positions = range(first, first + self.batch_size)
        orders = {epoch: self.chance.order(bucket, epoch, count) for epoch in {p // count for p in positions}}
        return [int(orders[position // count][position % count]) for position in positions]

    def _epoch_of(self, number: int) -> int:
        """The last epoch that begins at or before batch `number`."""
        most = (number + 1 + len(self.counts)) * self.batch_size // sum(self.counts) + 2
        return bisect_right(range(most), number, key=self._batches_of_all_before) - 1

    def _batches_of_all_before(self, epoch: int) -> int:
        return sum(self._batches_before(epoch, count) for count in self.counts)

    def _batches_before(self, epoch: int, count: int) -> int:
        return (2 * epoch * count + self.batch_size) // (2 * self.batch_size)


@dataclass(frozen=True)
class Stream:
    """An endless sequence of batches of a data set, and this process's share of each."""

    dataset: Dataset
    captions: CaptionTable
    batch_size: int
    """Of this process."""
    chance: Chance
    shard: Shard = Shard()
    reads_images: bool = True
    reads_controls: bool = False
    pinned: bool = False

    @cached_property
    def buckets(self) -> list[tuple[Size, NDArray[np.int64]]]:
        """Sizes, and the samples of each as often as an epoch uses them."""
        repeats = np.asarray(self.dataset.repeats)
        found = buckets_of(self.dataset).items()
        return [(size, np.repeat(indices, repeats[indices])) for size, indices in found]

    @cached_property
    def order(self) -> BucketOrder:
        """Of the batches of all processes."""
        counts = tuple(len(samples) for _, samples in self.buckets)
        return BucketOrder(counts, self.batch_size * self.shard.processes, self.chance)

    def choose(self, number: int) -> tuple[Size, list[int]]:
        """Size and samples of batch `number`, of all processes."""
        bucket, places = self.order.batch(number)
        size, samples = self.buckets[bucket]
        return size, samples[places].tolist()

    def batch(self, number: int) -> Batch:
        """This process's share of batch `number` in host memory, pinned if asked for."""
        size, samples = self.choose(number)
        rows = range(self.shard.process * self.batch_size, (self.shard.process + 1) * self.batch_size)
        indices = [samples[row] for row in rows]
        captions = [self._caption(number, row, samples[row]) for row in rows]
        drawn = [self.chance.noise(number, row, size) for row in rows]
        images = torch.from_numpy(np.array(self.dataset.images(indices))) if self.reads_images else None
        controls = torch.from_numpy(np.array(self.dataset.controls(indices))) if self.reads_controls else None
        noise = torch.from_numpy(np.stack([noise for noise, _ in drawn]))
        times = torch.tensor([time for _, time in drawn])
        shares = torch.tensor([self.chance.share(number, row) for row in rows])
        tensors = (torch.tensor(indices), torch.tensor(captions), noise, times, shares, images, controls)
        if self.pinned:
            tensors = tuple(None if tensor is None else tensor.pin_memory() for tensor in tensors)  # type: ignore[assignment]
        return Batch(*tensors)

    def batches(self, first: int) -> Generator[Batch]:
        """Batches from number `first` on, each made while its predecessor is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            coming = pool.submit(self.batch, first)
            number = first
            while True:
                number += 1
                current, coming = coming, pool.submit(self.batch, number)
                yield current.result()

    def _caption(self, number: int, row: int, sample: int) -> int:
        chosen = self.chance.caption(number, row, self.captions.alternatives[sample])
        return self.captions.dropped if chosen is None else chosen
