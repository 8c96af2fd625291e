"""Prompts -> embeddings, by both text encoders; prompts used before come from a cache.

Axes: R prompts, k chunks of 77 tokens, T = 77 k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.engines.host_call import HostCall
from intaglio.errors import ConfigError
from intaglio.recently_used import RecentlyUsed
from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.vocabulary import read_vocabulary

__all__ = ["TEXT_ENCODERS", "Embeddings", "TextEncoders", "vocabulary_size"]

Floats = NDArray[np.float32]
TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One prompt through both encoders: context [T, C], pooled [P]; float32, weights applied."""

    context: Floats
    pooled: Floats


class TextEncoders:
    """Both encoders and the embeddings used last."""

    def __init__(self, calls: Mapping[str, HostCall], *, kept: int) -> None:
        """`calls` has both of `TEXT_ENCODERS`; `kept` is the number of prompts in the cache."""
        self._calls = calls
        self._cache: RecentlyUsed[Embeddings] = RecentlyUsed(kept)
        """By digest of the encoders' weights, tokens, token weights and skipped layers."""

    def __call__(self, request: Conditioning, *, weights_digest: str) -> list[Embeddings]:
        """Embeddings of every prompt of `request`; all that the cache lacks are encoded in one batch.

        `weights_digest` differs when the encoders' weights do.
        """
        prompts = range(request.prompts)
        keys = [weights_digest + _prompt_key(request, prompt) for prompt in prompts]
        known = {key: found for key in keys if (found := self._cache.get(key)) is not None}
        zeros = {0} if request.zero_negative and request.guidance else set()
        missing = [prompt for prompt in prompts if keys[prompt] not in known and prompt not in zeros]
        if missing:
            for prompt, made in zip(missing, self._encode(request, missing), strict=True):
                known[keys[prompt]] = made
                self._cache.put(keys[prompt], made)
        prompt_embeddings: list[Embeddings] = []
        for prompt in prompts:
            if prompt in zeros:
                prompt_embeddings.append(_zeros_like(known[keys[-1]]))
            else:
                prompt_embeddings.append(known[keys[prompt]])
        return prompt_embeddings

    def _encode(self, request: Conditioning, prompts: list[int]) -> list[Embeddings]:
        chunks, tokens = request.token_ids.shape[2:]
        sizes = {"C": len(prompts) * chunks}
        # Each chunk's row among the hidden states of all chunks, layer by layer.
        skipped = np.repeat([request.skipped_layers(prompt) for prompt in prompts], chunks)
        rows = skipped * sizes["C"] + np.arange(sizes["C"])
        hidden: list[Floats] = []
        pooled = np.zeros(())
        for encoder, name in enumerate(TEXT_ENCODERS):
            ids = request.token_ids[encoder][prompts].reshape(-1, tokens)
            outputs = self._calls[name](sizes, input_ids=ids, state_rows=rows)
            weights = request.token_weights[encoder][prompts].reshape(-1, tokens, 1)
            states = outputs["hidden_states"].astype(np.float32) * weights
            hidden.append(states.reshape(len(prompts), chunks * tokens, -1))
            pooled = outputs.get("text_embeds", pooled)  # the second encoder's
        context = np.concatenate(hidden, axis=-1)
        # A long prompt is pooled from its first chunk.
        firsts = pooled.astype(np.float32).reshape(len(prompts), chunks, -1)[:, 0]
        return [Embeddings(context[row], firsts[row]) for row in range(len(prompts))]

    def warm_up(self, tokens: int) -> None:
        """Run both encoders on chunks of `tokens` tokens: two prompts, and one beside a cached one."""
        for prompts in (2, 1):
            for name in TEXT_ENCODERS:
                ids = np.zeros((prompts, tokens), np.int64)
                self._calls[name]({"C": prompts}, input_ids=ids, state_rows=np.arange(prompts))


def vocabulary_size(tokenizer: Path) -> int:
    """Number of tokens of the tokenizer in the folder `tokenizer`: one more than its highest id.

    Raises:
        ConfigError: its vocabulary is missing or damaged.
    """
    try:
        return read_vocabulary(tokenizer).size
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{tokenizer}: no vocabulary: {error!r}") from error


def _prompt_key(request: Conditioning, prompt: int) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(request.token_ids[:, prompt]).tobytes())
    digest.update(np.ascontiguousarray(request.token_weights[:, prompt]).tobytes())
    digest.update(request.skipped_layers(prompt).to_bytes(1))
    return digest.hexdigest()


def _zeros_like(embeddings: Embeddings) -> Embeddings:
    return Embeddings(np.zeros_like(embeddings.context), np.zeros_like(embeddings.pooled))
