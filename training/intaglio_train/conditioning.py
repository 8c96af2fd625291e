"""What the UNet is told and shown: text embeddings, size ids, latents and control images, on the device,
cached where asked for.

`B` of a batch, `N` samples, `R` different chunks of text, `k` chunks of a batch's longest caption, `T` = 77
tokens of a chunk, `C` context width, `P` pooled width, `n` samples of a bucket, `h = H/8`, `w = W/8`. SDXL
conditioning (arXiv 2307.01952): context = penultimate hidden states of both encoders side by side; pooled =
the second encoder's projection, of a caption's first chunk; time ids = original (height, width), crop (top,
left), target (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from intaglio_train.base_model import BaseModel
from intaglio_train.batches import Batch
from intaglio_train.data import Dataset, buckets_of
from intaglio_train.progress import Watch
from intaglio_train.text_chunks import ChunkedTexts

__all__ = [
    "BucketTables",
    "Caches",
    "Conditioner",
    "Conditions",
    "cat_conditions",
    "encode_images",
    "encode_tokens",
    "fill_caches",
]

ENCODING_BATCH = 32


@dataclass(frozen=True)
class Conditions:
    """Everything about a batch but noise and time."""

    latents: torch.Tensor  # [B,4,h,w]
    context: torch.Tensor  # [B,kT,C]
    pooled: torch.Tensor  # [B,P]
    time_ids: torch.Tensor  # [B,6]
    control: torch.Tensor | None  # [B,3,H,W] in 0..1

    @property
    def added(self) -> dict[str, torch.Tensor]:
        """The UNet's `added_cond_kwargs`."""
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}


def cat_conditions(first: Conditions, second: Conditions) -> Conditions:
    """Both batches in one (neither with control images)."""
    pairs = [
        (getattr(first, name), getattr(second, name)) for name in ("latents", "context", "pooled", "time_ids")
    ]
    latents, context, pooled, time_ids = (torch.cat(pair) for pair in pairs)
    return Conditions(latents, context, pooled, time_ids, control=None)


def encode_tokens(base: BaseModel, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Context [B,T,C] and pooled embedding [B,P] of token ids [2,B,T]."""
    outputs = [
        encoder(ids, output_hidden_states=True)
        for encoder, ids in zip(base.text_encoders, tokens, strict=True)
    ]
    context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return context, outputs[1].text_embeds


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Scaled latents [B,4,h,w] of images [B,H,W,3] uint8: the mean of the autoencoder's distribution, so that
    encoding is repeatable.
    """
    pixels = images.permute(0, 3, 1, 2).to(vae.device, vae.dtype).contiguous() / 127.5 - 1.0
    latents = vae.encode(pixels).latent_dist.mode().contiguous()
    mean = vae.config.latents_mean
    std = vae.config.latents_std
    if mean is not None and std is not None:
        latents = (latents - latents.new_tensor(mean).view(1, -1, 1, 1)) / latents.new_tensor(std).view(
            1, -1, 1, 1
        )
    return latents * vae.config.scaling_factor  # type: ignore[no-any-return]


@dataclass(frozen=True)
class BucketTables:
    """A table a bucket, since images of different buckets have different sizes."""

    tables: list[torch.Tensor]  # each [n,...]
    buckets: list[int]  # [N], the bucket of each sample
    rows: torch.Tensor  # [N] int64 on the host, the sample's row in its bucket's table

    def table_of(self, sample: int) -> torch.Tensor:
        """The table that holds a sample, and with it all samples of its size."""
        return self.tables[self.buckets[sample]]


@dataclass(frozen=True)
class Caches:
    """Tables over all samples or chunks of text; none where each batch is encoded when it is used."""

    latents: BucketTables | None = None  # [n,4,h,w]
    text: tuple[torch.Tensor, torch.Tensor] | None = None  # context [R,T,C], pooled [R,P]
    controls: BucketTables | None = None  # [n,3,H,W] uint8


@torch.no_grad()
def fill_caches(
    base: BaseModel,
    dataset: Dataset,
    texts: ChunkedTexts,
    *,
    which: frozenset[str],
    on: torch.device,
    watch: Watch,
) -> Caches:
    """Encode what `which` (of "latents", "text", "controls") names, once."""
    dtype = base.dtype
    latents = controls = text = None

    def encoded(samples: Sequence[int]) -> torch.Tensor:
        return encode_images(base.vae, torch.from_numpy(dataset.images(samples))).to(on, dtype)

    def loaded(samples: Sequence[int]) -> torch.Tensor:
        pixels = torch.from_numpy(dataset.controls(samples))
        return pixels.to(on).permute(0, 3, 1, 2).contiguous()

    if "latents" in which:
        latents = _tables(dataset, encoded, "encoding images", watch)
    if "controls" in which:
        controls = _tables(dataset, loaded, "loading controls", watch)
    if "text" in which:
        starts = range(0, texts.tokens.shape[1], 4 * ENCODING_BATCH)
        pieces = [texts.tokens[:, start : start + 4 * ENCODING_BATCH] for start in starts]
        watched = watch(pieces, "encoding captions", len(pieces))
        pairs = [encode_tokens(base, piece.to(base.device)) for piece in watched]
        context = torch.cat([piece.to(on, dtype) for piece, _ in pairs])
        pooled = torch.cat([piece.to(on, dtype) for _, piece in pairs])
        text = (context, pooled)
    return Caches(latents, text, controls)


def _tables(
    dataset: Dataset, make: Callable[[Sequence[int]], torch.Tensor], what: str, watch: Watch
) -> BucketTables:
    """What `make` gives of all samples."""
    found = list(buckets_of(dataset).values())
    pieces = []
    for bucket, samples in enumerate(found):
        starts = range(0, len(samples), ENCODING_BATCH)
        pieces += [(bucket, samples[start : start + ENCODING_BATCH]) for start in starts]
    made: list[list[torch.Tensor]] = [[] for _ in found]
    for bucket, samples in watch(pieces, what, len(pieces)):
        made[bucket].append(make(samples))
    buckets = [0] * len(dataset)
    rows = torch.zeros(len(dataset), dtype=torch.int64)
    for bucket, samples in enumerate(found):
        rows[samples] = torch.arange(len(samples))
        for sample in samples:
            buckets[sample] = bucket
    return BucketTables([torch.cat(tensors) for tensors in made], buckets, rows)


class Conditioner:
    """Turns a `Batch` into `Conditions`. A dropped caption becomes what the model's own pipeline uses for no
    prompt.

    `texts` are the captions of the batches' caption table, in its order, and "" for a dropped one.
    """

    def __init__(self, base: BaseModel, dataset: Dataset, texts: ChunkedTexts, caches: Caches) -> None:
        self._base = base
        self._caches = caches
        self._device = base.device
        self._time_ids = torch.from_numpy(dataset.geometry).to(self._device)  # [N,6]
        self._counts = texts.counts
        self._dropped = len(texts.counts) - 1
        self._rows_of_text = texts.rows.to(self._device)  # [U+1,K]
        self._no_caption: tuple[torch.Tensor, torch.Tensor] | None = None  # context [1,T,C], pooled [1,P]
        self._tokens = None if caches.text else texts.tokens.to(self._device)  # [2,R,T]

    def chunks_of(self, batch: Batch) -> int:
        """Chunks of the batch's longest caption."""
        captions: list[int] = batch.captions.tolist()
        return max(self._counts[caption] for caption in captions)

    def __call__(self, batch: Batch, *, chunks: int) -> Conditions:
        """Conditions with a context of `chunks` chunks; shorter captions are filled up with empty ones."""
        indices = batch.indices.to(self._device, non_blocking=True)
        context, pooled = self._text(batch.captions, chunks)
        return Conditions(
            latents=self._latents(batch),
            context=context,
            pooled=pooled,
            time_ids=self._time_ids[indices],
            control=self._control(batch),
        )

    def no_caption(self, count: int, *, chunks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Context [count,kT,C] and pooled embedding [count,P] of dropped captions, of `chunks` chunks.

        The text encoders must not be trained: the embedding is kept from the first call.
        """
        if self._no_caption is None:
            self._no_caption = self._text(torch.tensor([self._dropped]), 1)
        context, pooled = self._no_caption
        return context.repeat(count, chunks, 1), pooled.repeat(count, 1)

    def _text(self, captions: torch.Tensor, chunks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Context [B,kT,C] and pooled embedding [B,P]."""
        ids = captions.to(self._device, non_blocking=True)
        rows = self._rows_of_text[ids, :chunks]  # [B,k], fewer where this data set has no caption as long
        rows = torch.nn.functional.pad(rows, (0, chunks - rows.shape[1]))  # row 0 is the empty chunk
        if self._caches.text is not None:
            context = self._rows(self._caches.text[0], rows.flatten())
            pooled = self._rows(self._caches.text[1], rows[:, 0])
        else:
            assert self._tokens is not None
            context, every_pooled = encode_tokens(self._base, self._tokens[:, rows.flatten()])
            pooled = every_pooled.reshape(*rows.shape, -1)[:, 0]
        context = context.reshape(len(ids), -1, context.shape[-1])  # [Bk,T,C] -> [B,kT,C]
        if self._base.zero_empty_prompt:
            kept = (ids != self._dropped).to(context.dtype)
            context = context * kept[:, None, None]
            pooled = pooled * kept[:, None]
        return context, pooled

    def _latents(self, batch: Batch) -> torch.Tensor:
        if self._caches.latents is not None:
            return self._rows_of_samples(self._caches.latents, batch)
        assert batch.images is not None
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return encode_images(self._base.vae, batch.images.to(self._device, non_blocking=True))

    def _control(self, batch: Batch) -> torch.Tensor | None:
        if self._caches.controls is not None:
            return self._rows_of_samples(self._caches.controls, batch).float() / 255.0
        if batch.controls is None:
            return None
        return (
            batch.controls.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float().contiguous()
            / 255.0
        )

    def _rows_of_samples(self, cache: BucketTables, batch: Batch) -> torch.Tensor:
        """The batch's rows, found by its numbers on the host, so that the device is not waited for."""
        return self._rows(cache.table_of(int(batch.indices[0])), cache.rows[batch.indices])

    def _rows(self, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`table[rows]` on the device, gathered where the table is."""
        return table[rows.to(table.device, non_blocking=True)].to(self._device, non_blocking=True)
