"""A request as it comes in: read, checked against the build, and what it wants to be resident.

Nothing here needs an engine, so a process may read requests that another one draws.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.ports import Tensors
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import set_digest, set_text
from intaglio.loras.store import LoraStore
from intaglio.request.loras import check_resolved
from intaglio.stages.diffuse.conditioning import Conditioning, check_token_ids, read_conditioning
from intaglio.stages.diffuse.text import vocabulary_size

__all__ = ["IncomingRequests", "Wanted", "wanted_of"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be resident for a request."""

    loras: str
    """Digest of the set of LoRAs."""
    controlnets: frozenset[str]
    """Networks of the ControlNets that take part."""

    def is_missing(self, loras: str, controlnets: Collection[str]) -> bool:
        """Whether it needs a swap where the set of digest `loras` and these `controlnets` are resident."""
        return self.loras != loras or not self.controlnets.issubset(controlnets)


def wanted_of(request: Conditioning) -> Wanted:
    """What must be resident for `request`."""
    return Wanted(set_digest(request.loras), frozenset(request.active_controlnets))


class IncomingRequests:
    """Reads requests for one build; any thread may call."""

    def __init__(self, manifest: BuildManifest, folder: Path, *, store: LoraStore) -> None:
        """Raises ConfigError where a tokenizer is damaged."""
        self._manifest = manifest
        self._store = store
        self._vocabularies = tuple(vocabulary_size(folder / name) for name in manifest.tokenizers)
        """Number of tokens that each text encoder knows."""

    def read(
        self, tensors: Tensors, *, is_resident: Callable[[tuple[ResolvedLora, ...]], bool]
    ) -> Conditioning:
        """The checked request; `is_resident` says whether a set of LoRAs is in the engines.

        Raises:
            InvalidRequest: tensors that do not fit each other or the build, or that exceed the limits of a
                request; LoRAs that `preprocess` would not have asked for.
            SwapFailed: the last publication took away what `preprocess` named.
            ConfigError: the registry of LoRAs is damaged.
        """
        request = self._checked(tensors)
        if request.loras:
            check_resolved(request.loras, self._store.current(), is_resident=is_resident(request.loras))
        return request

    def _checked(self, tensors: Tensors) -> Conditioning:
        """The request, checked against the build; which LoRAs are published may change meanwhile."""
        request = read_conditioning(tensors, self._manifest)
        check_token_ids(request, self._vocabularies)
        if request.loras and self._manifest.swap == "off":
            problem = set_text(request.loras)
            raise InvalidRequest("loras", problem, allowed="none: this build does not swap LoRAs")
        return request
