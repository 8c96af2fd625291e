"""What chance decides of a sample each time it is used: its caption, its time and its noise.

Every draw is a function of the run's seed and of the sample's place in the run: the number of the batch of
all processes, and its row there. So a run gives the same draws when it is resumed, on another device, and
when its batches are spread over several processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio_train.buckets import LATENT_SCALE

__all__ = ["Chance"]

ORDERS: Final = 0
CAPTIONS: Final = 1
NOISE: Final = 2
NETWORK: Final = 3
BATCH_ORDERS: Final = 4
SHARES: Final = 5


@dataclass(frozen=True)
class Chance:
    """Draws of one data set; `salt` sets those of one run apart (a prior's from the main one)."""

    seed: int
    salt: int = 0
    caption_dropout: float = 0.0
    noise_offset: float = 0.0
    times: range = range(1000)
    """Noise levels of the model's schedule that are trained."""
    channels: int = 4
    """Channels of the latents."""

    def order(self, bucket: int, epoch: int, count: int) -> NDArray[np.int64]:
        """A permutation of the `count` items of a bucket."""
        return self._generator(ORDERS, bucket, epoch).permutation(count)

    def batch_order(self, epoch: int, buckets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The batches of an epoch, each named by its bucket, in the order in which they are used."""
        return self._generator(BATCH_ORDERS, epoch).permutation(buckets)

    def caption(self, batch: int, row: int, alternatives: tuple[int, ...]) -> int | None:
        """One of the alternatives; none where the caption is dropped."""
        dropped, chosen = self._generator(CAPTIONS, batch, row).random(2)
        if dropped < self.caption_dropout:
            return None
        return alternatives[int(chosen * len(alternatives))]

    def noise(self, batch: int, row: int, size: tuple[int, int]) -> tuple[NDArray[np.float32], int]:
        """Normal noise [C,h,w] for an image of `size` = (width, height), and a time.

        `noise_offset` adds one draw a channel, so that overall brightness is learnt (crosslabs.org,
        "Diffusion with offset noise").
        """
        generator = self._generator(NOISE, batch, row)
        time = self.times[int(generator.integers(len(self.times)))]
        shape = (self.channels, size[1] // LATENT_SCALE, size[0] // LATENT_SCALE)
        noise = generator.standard_normal(shape, np.float32)
        if self.noise_offset:
            noise += np.float32(self.noise_offset) * generator.standard_normal((shape[0], 1, 1), np.float32)
        return noise, time

    def share(self, batch: int, row: int) -> float:
        """A number from 0 to 1, for what a trainer decides by chance beside noise and time."""
        return float(self._generator(SHARES, batch, row).random())

    def network_seed(self, number: int, process: int) -> int:
        """For torch's global generators, from which dropout inside a network draws."""
        sequence = np.random.SeedSequence((self.seed, self.salt, NETWORK, number, process))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.salt, *key))
