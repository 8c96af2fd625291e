"""From a configuration to what a step needs: data checked, model loaded, caches filled. In that order, so
that bad data fails fast.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch

from intaglio_train.accelerators import make_accelerator, seed_network
from intaglio_train.base_model import BaseModel, ModelSource, load_base_model, training_dtype
from intaglio_train.batches import Batch, CaptionTable, Shard, Stream, caption_table
from intaglio_train.chance import Chance
from intaglio_train.conditioning import Conditioner, Conditions, cat_conditions, fill_caches
from intaglio_train.config import DataConfig, SampleConfig, TrainingConfig
from intaglio_train.data import Dataset, buckets_of, open_dataset
from intaglio_train.errors import ConfigError, DataError
from intaglio_train.loss import (
    NoiseSchedule,
    add_noise,
    every_level,
    loss_weights,
    noise_schedule_of,
    target_of,
)
from intaglio_train.progress import Reporter
from intaglio_train.text_chunks import CHUNK_POSITIONS, CHUNK_TOKENS, MOST_CHUNKS, ChunkedTexts, chunk_texts

__all__ = ["Example", "Session", "Source", "open_session"]

Batches = tuple[Batch, ...]


@dataclass(frozen=True)
class Source:
    """A data set ready to be drawn from."""

    dataset: Dataset
    stream: Stream
    conditioner: Conditioner


@dataclass(frozen=True)
class Example:
    """One batch as the networks see it, and what they should answer."""

    conditions: Conditions
    noisy: torch.Tensor  # [B,4,h,w]
    times: torch.Tensor  # [B]
    target: torch.Tensor  # [B,4,h,w] fp32
    weights: torch.Tensor  # [B] fp32
    shares: torch.Tensor  # [B] fp32 from 0 to 1; see `Batch`


@dataclass(frozen=True)
class Session:
    """An open run; `sources` are the main data set and, for a LoRA with a prior, the prior's."""

    config: TrainingConfig
    accelerator: Any
    base: BaseModel
    schedule: NoiseSchedule
    sources: tuple[Source, ...]

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers, and the connection to other processes once all have come here."""
        if error is None:  # after an error others may never come, and a tracker may not have begun
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()

    def batches(self, first: int) -> Generator[Batches]:
        """One batch of every source at a time."""
        streams = [source.stream.batches(first) for source in self.sources]
        try:
            while True:
                yield tuple(next(stream) for stream in streams)
        finally:
            for stream in streams:
                stream.close()

    def examples(self, batches: Batches) -> list[Example]:
        """Condition, noise and weigh the batch of each source. Those whose images have one size become one
        example, one batch after the other, so that the network runs once.
        """
        with self.accelerator.autocast():
            pairs = list(zip(self.sources, batches, strict=True))
            chunks = max(source.conditioner.chunks_of(batch) for source, batch in pairs)
            parts = [source.conditioner(batch, chunks=chunks) for source, batch in pairs]
        if len({tuple(part.latents.shape[2:]) for part in parts}) > 1:
            return [self._example(part, [batch]) for part, batch in zip(parts, batches, strict=True)]
        conditions = parts[0]
        for part in parts[1:]:
            conditions = cat_conditions(conditions, part)
        return [self._example(conditions, batches)]

    def unconditional(self, conditions: Conditions) -> Conditions:
        """The same conditions with the model's own embedding of no prompt instead of the captions."""
        chunks = conditions.context.shape[1] // CHUNK_POSITIONS
        with self.accelerator.autocast():
            context, pooled = self.sources[0].conditioner.no_caption(len(conditions.context), chunks=chunks)
        return replace(conditions, context=context, pooled=pooled)

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """What the UNet says [B,4,h,w]."""
        with self.accelerator.autocast():
            answer: tuple[torch.Tensor] = self.base.unet(
                noisy,
                times,
                conditions.context,
                added_cond_kwargs=conditions.added,
                return_dict=False,
            )
        return answer[0]

    def _example(self, conditions: Conditions, batches: Sequence[Batch]) -> Example:
        """The example of batches whose conditions stand one after the other."""
        latents = conditions.latents

        def together(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
            return torch.cat(list(tensors)).to(latents.device, non_blocking=True)

        noise = together(batch.noise for batch in batches)
        times = together(batch.times for batch in batches)
        return Example(
            conditions,
            add_noise(self.schedule, latents, noise, times).to(self.base.dtype),
            times,
            target_of(self.schedule, latents, noise, times),
            loss_weights(self.schedule, times, self.config.min_snr_gamma),
            together(batch.shares for batch in batches),
        )


def open_session(
    config: TrainingConfig,
    *,
    control: bool,
    prior: DataConfig | None,
    caches: frozenset[str],
    reporter: Reporter,
    trained_times: Callable[[NoiseSchedule], range] = every_level,
) -> Session:
    """Check the data, load the model, fill `caches`. `trained_times` chooses from the model's noise levels.
    Raises `DataError`, `ConfigError`."""
    datasets = _checked_datasets(config, prior, control=control, reporter=reporter)
    accelerator = make_accelerator(config)
    _say_idle_gpus(accelerator, reporter)
    seed_network(config.seed)  # the same first weights in every process
    device = accelerator.device
    source = ModelSource(config.model, config.variant, config.configurations)
    base = load_base_model(source, device=device, dtype=training_dtype(config.mixed_precision))
    if config.samples is not None:
        _check_sample_prompts(base, config.samples)
    schedule = noise_schedule_of(base.scheduler, device)
    times = trained_times(schedule)
    on = device if config.cache_on == "device" else torch.device("cpu")
    sources = []
    for salt, dataset in enumerate(datasets):
        captions = caption_table(dataset.captions)
        texts = chunk_texts(base.tokenizers, [*captions.texts, ""])
        _check_lengths(dataset, captions, texts, reporter)
        filled = fill_caches(base, dataset, texts, which=caches, on=on, watch=reporter.watch)
        stream = Stream(
            dataset,
            captions,
            config.batch_size,
            _chance(config, salt, base, times),
            Shard(accelerator.process_index, accelerator.num_processes),
            reads_images=filled.latents is None,
            reads_controls=control and filled.controls is None,
            pinned=device.type == "cuda",
        )
        sources.append(Source(dataset, stream, Conditioner(base, dataset, texts, filled)))
    _set_aside(base, caches, sampling=config.samples is not None)
    return Session(config, accelerator, base, schedule, tuple(sources))


def _checked_datasets(
    config: TrainingConfig, prior: DataConfig | None, *, control: bool, reporter: Reporter
) -> list[Dataset]:
    datasets = []
    for data in (config.data, prior):
        if data is None:
            continue
        dataset = open_dataset(
            data,
            config.size,
            placing=config.placing,
            control=control,
            threads=config.loader_threads,
            reporter=reporter,
        )
        _say_buckets(dataset, config, reporter)
        datasets.append(dataset)
    return datasets


def _say_idle_gpus(accelerator: Any, reporter: Reporter) -> None:
    count = torch.cuda.device_count() if accelerator.device.type == "cuda" else 0
    if accelerator.num_processes == 1 and count > 1:
        reporter.note(
            f"one of {count} GPUs is used; accelerate launch --multi_gpu --num_processes {count}"
            " -m intaglio_train ... uses all of them"
        )


def _check_lengths(dataset: Dataset, captions: CaptionTable, texts: ChunkedTexts, reporter: Reporter) -> None:
    """Say how long the longest captions are. Raises `DataError` naming the file of one that is too long."""
    for index, alternatives in enumerate(captions.alternatives):
        longest = max(texts.counts[caption] for caption in alternatives)
        if longest > MOST_CHUNKS:
            raise DataError(
                f"{dataset.where(index)}: its caption takes {longest} chunks of {CHUNK_TOKENS} tokens;"
                f" at most {MOST_CHUNKS}"
            )
    long = sum(count > 1 for count in texts.counts)
    if long:
        reporter.note(
            f"{long} captions are longer than {CHUNK_TOKENS} tokens and are encoded in up to"
            f" {max(texts.counts)} chunks, as serving encodes such prompts (profiles.text_chunks)"
        )


def _check_sample_prompts(base: BaseModel, samples: SampleConfig) -> None:
    """The pipeline that draws samples would cut a longer prompt without a word."""
    prompts = [*samples.prompts, samples.negative_prompt or ""]
    for prompt, count in zip(prompts, chunk_texts(base.tokenizers, prompts).counts, strict=True):
        if count > 1:
            raise ConfigError(
                f"samples: prompt {prompt[:40]!r}... is longer than {CHUNK_TOKENS} tokens;"
                f" samples are drawn with at most {CHUNK_TOKENS}"
            )


def _say_buckets(dataset: Dataset, config: TrainingConfig, reporter: Reporter) -> None:
    buckets = buckets_of(dataset)
    if len(buckets) > 1:
        counts = [f"{width}x{height}: {len(samples)}" for (width, height), samples in buckets.items()]
        reporter.note(f"images by bucket (fit: {config.fit}): {', '.join(counts)}")


def _chance(config: TrainingConfig, salt: int, base: BaseModel, times: range) -> Chance:
    return Chance(
        config.seed,
        salt,
        config.caption_dropout,
        config.noise_offset,
        times=times,
        channels=base.vae.config.latent_channels,
    )


def _set_aside(base: BaseModel, caches: frozenset[str], *, sampling: bool) -> None:
    """Give back the memory of encoders that no step needs."""
    if sampling:
        return
    if "latents" in caches:
        base.vae.to("cpu")
    if "text" in caches:
        for encoder in base.text_encoders:
            encoder.to("cpu")
