"""Both text encoders and the UNet, trained together on the world."""

# ruff: noqa: PLC0415  (transformers is imported where captions are tokenized)

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from miniature import architecture
from miniature.labels import CLASS_COUNTS
from miniature.training.autoencoder import encode_all, load_autoencoder, rendered
from miniature.training.loop import Run, State, save_atomically
from miniature.training.settings import MODEL, Settings, device, half_precision

__all__ = ["BaseModel", "canonical", "load_base", "refine_base", "train_base"]

_MIN_SNR_GAMMA: Final = 5.0
"""arXiv 2303.09556."""
_TEXT_TASK_WEIGHT: Final = 0.1
_CHANCES: Final = 20
"""One caption in so many is empty, and another one has its embeddings zeroed."""


def tokenize(captions: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Token ids [N, C, 77] of both tokenizers."""
    from transformers import CLIPTokenizer

    ids = []
    for folder in ("tokenizer", "tokenizer_2"):
        tokenizer = CLIPTokenizer.from_pretrained(str(MODEL / folder))
        flat = [text for texts in captions for text in texts]
        length = architecture.TOKENS
        encoded = tokenizer(
            flat, padding="max_length", max_length=length, truncation=True, return_tensors="np"
        )["input_ids"]
        ids.append(torch.from_numpy(encoded.astype(np.int64)).reshape(len(captions), -1, length))
    return ids[0], ids[1]


class BaseModel(nn.Module):
    """Both text encoders, the UNet, and a small task of the text encoders: name the scene's attributes.

    The task takes the place of CLIP's pre-training. It gives the token states and the pooled embedding a
    meaning early.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = architecture.make_text_encoders()
        self.unet: Any = architecture.make_unet()
        width = architecture.TEXT_WIDTHS[0] + architecture.POOLED_WIDTH
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in CLASS_COUNTS)

    def encode(self, ids: Tensor, ids_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Context [B, 77, C], pooled [B, P], and the task's input [B, .] from token ids [B, 77]."""
        first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(ids_2, output_hidden_states=True)
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        end = ids.eq(architecture.END_TOKEN).int().argmax(-1)
        summary = first.hidden_states[-2][torch.arange(len(ids), device=ids.device), end]
        return context, second.text_embeds, torch.cat([summary, second.text_embeds], -1)


def canonical(state: State) -> State:
    """The state with `text_model.` in the names of the CLIP text models.

    transformers 5 dropped it. Released SDXL weights, and ours, have it.
    """
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        bare = part in ("text_encoder", "text_encoder_2") and rest.startswith(
            ("embeddings.", "encoder.", "final_layer_norm.")
        )
        renamed[f"{part}.text_model.{rest}" if bare else name] = tensor
    return renamed


def load_base(stage: str, settings: Settings) -> BaseModel:
    """The text encoders and the UNet that `stage` left."""
    path = settings.weights(stage)
    state = load_file(path)
    model = BaseModel()
    for own in model.state_dict():
        if own not in state and own.replace(".", ".text_model.", 1) in state:
            state[own] = state.pop(own.replace(".", ".text_model.", 1))
    wrong = model.load_state_dict(state, strict=False)
    if wrong.unexpected_keys or any(not key.startswith("heads.") for key in wrong.missing_keys):
        raise SystemExit(f"{path.name} does not fit this architecture: {wrong}")
    return model


@dataclass(frozen=True)
class Lessons:
    """What the base model is trained on, on the device."""

    latents: Tensor
    """[N, 4, h, w], scaled, half precision."""
    ids: tuple[Tensor, Tensor]
    """[N, C, 77] token ids of both tokenizers."""
    empty: tuple[Tensor, Tensor]
    """[1, 77] token ids of an empty caption."""
    labels: Tensor
    """[N, A] class numbers of the scene's attributes."""


def _load_lessons(settings: Settings) -> Lessons:
    data = settings.work / "data" / "base"
    autoencoder = load_autoencoder("autoencoder", settings)
    latents = encode_all(autoencoder, rendered("base", settings)).float()
    ids, ids_2 = tokenize(json.loads((data / "captions.json").read_text()))
    empty, empty_2 = tokenize([[""]])
    return Lessons(
        latents.mul_(autoencoder.config.scaling_factor).half(),
        (ids.to(device()), ids_2.to(device())),
        (empty[0].to(device()), empty_2[0].to(device())),
        torch.from_numpy(np.load(data / "labels.npy")).to(device()),
    )


class _Loss:
    """Loss of one step: squared error of the noise with min-SNR weights, and the text encoders' task."""

    def __init__(self, model: BaseModel, lessons: Lessons, batch: int) -> None:
        self._model = model
        self._lessons = lessons
        self._batch = batch
        scheduler: Any = architecture.make_scheduler()
        self._alphas = scheduler.alphas_cumprod.to(device())
        snr = self._alphas / (1 - self._alphas)
        self._weights = snr.clamp(max=_MIN_SNR_GAMMA) / snr
        side = architecture.IMAGE_SIZE
        self._time_ids = torch.tensor([[side, side, 0, 0, side, side]], device=device()).float()

    def __call__(self, generator: torch.Generator) -> Tensor:
        def draw(high: int) -> Tensor:
            return torch.randint(high, (self._batch,), generator=generator, device=device())

        rows = draw(len(self._lessons.latents))
        which = draw(self._lessons.ids[0].shape[1])
        chance = draw(_CHANCES)
        clean = self._lessons.latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator, device=device())
        t = draw(len(self._alphas))
        alpha = self._alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with half_precision():
            predicted, logits = self._predict(noisy, t, self._read(rows, which, chance), chance)
        labels = self._lessons.labels[rows]
        task = sum(functional.cross_entropy(one, labels[:, at]) for at, one in enumerate(logits))
        error = (predicted - noise).square().mean((1, 2, 3))
        loss: Tensor = (error * self._weights[t]).mean() + _TEXT_TASK_WEIGHT * task / len(logits)
        return loss

    def _read(self, rows: Tensor, which: Tensor, chance: Tensor) -> list[Tensor]:
        """Token ids [B, 77] of both tokenizers."""
        blank = (chance == 0)[:, None]
        pairs = zip(self._lessons.empty, self._lessons.ids, strict=True)
        return [torch.where(blank, empty, ids[rows, which]) for empty, ids in pairs]

    def _predict(
        self, noisy: Tensor, t: Tensor, ids: list[Tensor], chance: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The noise that the UNet finds, and what the heads say of the text."""
        context, pooled, summary = self._model.encode(*ids)
        kept = (chance != 1).float()
        time_ids = self._time_ids.expand(self._batch, -1)
        added = {"text_embeds": pooled * kept[:, None], "time_ids": time_ids}
        context = context * kept[:, None, None]
        predicted = self._model.unet(noisy, t, context, added_cond_kwargs=added).sample.float()
        return predicted, [head(summary).float() for head in self._model.heads]


def train_base(settings: Settings) -> None:
    """Text encoders and UNet together: epsilon prediction with min-SNR weights.

    1 caption in 20 is empty, and 1 in 20 has its embeddings zeroed (force_zeros_for_empty_prompt).
    """
    _train("base", settings, start=None)


def refine_base(settings: Settings) -> None:
    """A second cycle of the learning rate from where the first one ended: limbs and faces settle here."""
    _train("refine", settings, start="base")


def _train(stage: str, settings: Settings, *, start: str | None) -> None:
    lessons = _load_lessons(settings)
    torch.manual_seed(2)
    model = BaseModel() if start is None else load_base(start, settings)
    model.to(device())
    if settings.compile:
        model.unet.compile()
    loss = _Loss(model, lessons, settings.batch[stage])
    state = canonical(Run(stage, model, settings).train(loss))
    kept = {key: tensor for key, tensor in state.items() if not key.startswith("heads.")}
    save_atomically(kept, settings.weights(stage))
