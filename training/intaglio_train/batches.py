"""Which samples and captions each step sees: a pure function of (seed, step), so that a resumed run sees what
it would have seen.

`N` samples, `B` of a batch, `U` different captions. Images are read one batch ahead in a thread.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from intaglio_train.data import Dataset

__all__ = ["Batch", "CaptionTable", "Stream", "caption_table"]


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
    """Host tensors of one batch."""

    indices: torch.Tensor  # [B] int64, samples
    captions: torch.Tensor  # [B] int64, ids into the caption table
    images: torch.Tensor | None  # [B,H,W,3] uint8; none when latents are cached
    controls: torch.Tensor | None  # [B,H,W,3] uint8; none without control or when they are cached


@dataclass(frozen=True)
class Stream:
    """An endless sequence of batches: epochs of a fresh permutation each, without a gap between them.

    `salt` sets streams of one run apart (a prior's from the main one).
    """

    dataset: Dataset
    captions: CaptionTable
    batch_size: int
    seed: int
    caption_dropout: float = 0.0
    salt: int = 0
    reads_images: bool = True
    reads_controls: bool = False
    pinned: bool = False

    def choose(self, number: int) -> tuple[list[int], list[int]]:
        """Samples and caption ids of batch `number`."""
        count = len(self.dataset)
        positions = range(number * self.batch_size, (number + 1) * self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {position // count for position in positions}}
        indices = [int(orders[position // count][position % count]) for position in positions]
        draws = np.random.default_rng((self.seed, self.salt, 1, number)).random((2, self.batch_size))
        captions = [
            self.captions.dropped
            if draws[0, row] < self.caption_dropout
            else self._alternative(index, draws[1, row])
            for row, index in enumerate(indices)
        ]
        return indices, captions

    def batch(self, number: int) -> Batch:
        """Batch `number` in host memory, pinned if asked for."""
        indices, captions = self.choose(number)
        images = torch.from_numpy(np.array(self.dataset.images(indices))) if self.reads_images else None
        controls = torch.from_numpy(np.array(self.dataset.controls(indices))) if self.reads_controls else None
        tensors = (torch.tensor(indices), torch.tensor(captions), images, controls)
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

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, self.salt, 0, epoch)).permutation(len(self.dataset))

    def _alternative(self, index: int, draw: float) -> int:
        choices = self.captions.alternatives[index]
        return choices[int(draw * len(choices))]
