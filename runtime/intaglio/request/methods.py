"""The few-step method of a request: of a LoRA that it asks for, of a fused LoRA, or of the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.methods import METHODS, values_text
from intaglio.contract.models import SDXL
from intaglio.contract.ports import Tensors, shortest_float32
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLoras
from intaglio.request.presets import Source

__all__ = ["AskedMethod", "asked_method"]


@dataclass(frozen=True, slots=True)
class AskedMethod:
    """The one method of a request."""

    name: str
    owner: str
    """`lora fast`, or `the build`."""

    @property
    def source(self) -> Source:
        """The values that it sets."""
        method = METHODS[self.name]
        schedulers = method.choices.get("scheduler", ())
        return Source(f"method {self.name} of {self.owner}", method.values, schedulers)

    def contradictions(self, found: Tensors, origins: Mapping[str, str]) -> tuple[str, ...]:
        """What the request says that the method is not made for, a sentence each.

        `found` are the request's tensors with everything filled in, and `origins` says where values come from
        that the caller did not state.
        """
        method = METHODS[self.name]
        sentences = []
        for name in method.values:
            if name not in found:
                taken = values_text(method.values[name])
                sentences.append(f"{name}: {taken}, which {self._made} sets, is replaced by what is stated")
                continue
            value = _value(found, name)
            if not method.admits(name, value):
                stated = f"{name}: {values_text(value)}"
                if name in origins:
                    stated += f" (from {origins[name]})"
                sentences.append(f"{stated}, but {self._made} is made for {method.allowed(name)}")
        return (*sentences, *self._unused_negatives(found, origins))

    def _unused_negatives(self, found: Tensors, origins: Mapping[str, str]) -> Iterator[str]:
        """Which negative prompts that the caller states the method leaves without effect."""
        if origins.get("guidance_scale") != self.source.name or _value(found, "guidance_scale") > 1:
            return
        for name in ("negative_prompt", "negative_preset"):
            if name in found and _value(found, name):
                yield f"{name}: has no effect, because {self._made} switches guidance off"

    @property
    def _made(self) -> str:
        return f"{self.owner} (method {self.name})"


def asked_method(
    loras: Sequence[ResolvedLora], served: ServedLoras | None, manifest: BuildManifest
) -> AskedMethod | None:
    """The method of the `loras` that a request asks for, or of the build; None where none has one.

    Raises:
        InvalidRequest: they have several.
    """
    found = []
    if manifest.method is not None:
        found.append(AskedMethod(manifest.method, "the build"))
    if served is not None:
        for lora in loras:
            method = served.loras[lora.id].method
            if method is not None:
                found.append(AskedMethod(method, f"lora {lora.id}"))
    if len({one.name for one in found}) > 1:
        shown = ", ".join(f"{one.owner} has {one.name}" for one in found)
        raise InvalidRequest("loras", f"methods contradict: {shown}", allowed="LoRAs of one few-step method")
    return found[0] if found else None


def _value(found: Tensors, name: str) -> Any:
    """The value of an input as people write it."""
    values = [_one(value) for value in found[name].tolist()]
    return values[0] if SDXL.input(name).is_scalar else values


def _one(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return shortest_float32(value) if isinstance(value, float) else value
