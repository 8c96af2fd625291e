"""What the UNet is told and shown: text embeddings, size ids, latents and control images, on the device,
cached where asked for.

`B` of a batch, `N` samples, `R` different chunks of text, `k` chunks of a batch's longest caption, `T` = 77
tokens of a chunk, `C` context width, `P` pooled width, `h = H/8`, `w = W/8`. SDXL conditioning (arXiv
2307.01952): context = penultimate hidden states of both encoders side by side; pooled = the second encoder's
projection, of a caption's first chunk; time ids = original (height, width), crop (top, left), target (height,
width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from intaglio_train.base_model import BaseModel
from intaglio_train.batches import Batch
from intaglio_train.data import Dataset
from intaglio_train.progress import Watch
from intaglio_train.text_chunks import ChunkedTexts

__all__ = [
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
    latents = vae.encode(pixels).latent_dist.mode().contiguous()  # `randn_like` draws by layout
    mean = vae.config.latents_mean
    std = vae.config.latents_std
    if mean is not None and std is not None:
        latents = (latents - latents.new_tensor(mean).view(1, -1, 1, 1)) / latents.new_tensor(std).view(
            1, -1, 1, 1
        )
    return latents * vae.config.scaling_factor  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Caches:
    """Tables over all samples or chunks of text; none where each batch is encoded when it is used."""

    latents: torch.Tensor | None = None  # [N,4,h,w]
    text: tuple[torch.Tensor, torch.Tensor] | None = None  # context [R,T,C], pooled [R,P]
    controls: torch.Tensor | None = None  # [N,3,H,W] uint8


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
    chunks = [
        range(start, min(start + ENCODING_BATCH, len(dataset)))
        for start in range(0, len(dataset), ENCODING_BATCH)
    ]
    dtype = base.dtype
    latents = controls = text = None
    if "latents" in which:
        watched = watch(chunks, "encoding images", len(chunks))
        latents = torch.cat(
            [
                encode_images(base.vae, torch.from_numpy(dataset.images(chunk))).to(on, dtype)
                for chunk in watched
            ]
        )
    if "controls" in which:
        watched = watch(chunks, "loading controls", len(chunks))
        controls = torch.cat(
            [
                torch.from_numpy(dataset.controls(chunk)).to(on).permute(0, 3, 1, 2).contiguous()
                for chunk in watched
            ]
        )
    if "text" in which:
        starts = range(0, texts.tokens.shape[1], 4 * ENCODING_BATCH)
        pieces = [texts.tokens[:, start : start + 4 * ENCODING_BATCH] for start in starts]
        watched = watch(pieces, "encoding captions", len(pieces))
        encoded = [encode_tokens(base, piece.to(base.device)) for piece in watched]
        context = torch.cat([piece.to(on, dtype) for piece, _ in encoded])
        pooled = torch.cat([piece.to(on, dtype) for _, piece in encoded])
        text = (context, pooled)
    return Caches(latents, text, controls)


class Conditioner:
    """Turns a `Batch` into `Conditions`. A dropped caption becomes what the model's own pipeline uses for no
    prompt.

    `texts` are the captions of the batches' caption table, in its order, and "" for a dropped one.
    """

    def __init__(
        self, base: BaseModel, dataset: Dataset, texts: ChunkedTexts, caches: Caches, size: tuple[int, int]
    ) -> None:
        self._base = base
        self._caches = caches
        self._device = base.device
        target = torch.tensor([size[1], size[0]], dtype=torch.float32).expand(len(dataset), 2)
        time_ids = torch.cat([torch.from_numpy(dataset.geometry), target], dim=1)
        self._time_ids = time_ids.to(self._device)  # [N,6]
        self._counts = texts.counts
        self._dropped = len(texts.counts) - 1
        self._rows_of_text = texts.rows.to(self._device)  # [U+1,K]
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
            latents=self._latents(batch, indices),
            context=context,
            pooled=pooled,
            time_ids=self._time_ids[indices],
            control=self._control(batch, indices),
        )

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

    def _latents(self, batch: Batch, indices: torch.Tensor) -> torch.Tensor:
        if self._caches.latents is not None:
            return self._rows_of_samples(self._caches.latents, batch, indices)
        assert batch.images is not None
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return encode_images(self._base.vae, batch.images.to(self._device, non_blocking=True))

    def _control(self, batch: Batch, indices: torch.Tensor) -> torch.Tensor | None:
        if self._caches.controls is not None:
            return self._rows_of_samples(self._caches.controls, batch, indices).float() / 255.0
        if batch.controls is None:
            return None
        return (
            batch.controls.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float().contiguous()
            / 255.0
        )

    def _rows_of_samples(self, table: torch.Tensor, batch: Batch, indices: torch.Tensor) -> torch.Tensor:
        """Of a table on the host by the batch's own numbers, so that the device is not waited for."""
        if table.device.type == "cpu":
            return self._rows(table, batch.indices)
        return self._rows(table, indices)

    def _rows(self, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`table[rows]` on the device, gathered where the table is."""
        return table[rows.to(table.device, non_blocking=True)].to(self._device, non_blocking=True)
