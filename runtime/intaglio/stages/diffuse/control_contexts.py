"""What the ControlNets of a pass need beside the latents, computed once per image and kept on the device.

Axes: B images of a pass, h and w of the latents, c channels of the first residual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from intaglio.contract.sdxl import context_name
from intaglio.contract.tensors import AxisSizes
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Backend, Bound, DeviceArray, Engine
from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.links import ControlLink, ControlPlan

__all__ = ["ControlContexts", "bind_engine"]

_EMBEDDING: Final = "control_embedding"
_BEFORE: Final = "embedding_before"
_NONE: Final = -1
"""Number of the embedding of no control: zeros."""


class ControlContexts:
    """Buffers and context networks of the links of one shape of pass; kept from request to request.

    A link is known by its place in the request. Of one place, all ControlNets share their buffers.

    A ControlNet-Union adds up the embeddings of the controls that are present. Where their windows differ,
    other controls are present in other steps, and there is one sum for each set of them. A sum has a number:
    0 is the place's own buffer, the others are buffers that all places share.
    """

    def __init__(
        self,
        backend: Backend,
        engines: Mapping[str, Engine],
        *,
        sizes: AxisSizes,
        unet: Mapping[str, DeviceArray],
    ) -> None:
        """`unet` has every tensor of the UNet and of its context."""
        self._backend = backend
        self._engines = engines
        self._sizes = sizes
        self._unet = unet
        self._buffers: dict[int, dict[str, DeviceArray]] = {}
        """By place."""
        self._sums: dict[int, DeviceArray] = {}
        """Embeddings [B, h, w, c] by number, but for number 0."""
        self._taken = 0
        """The highest number that a slice has taken so far."""
        self._numbers: dict[int, dict[tuple[int, ...], int]] = {}
        """Number of the sum by place and by the plans that are present."""
        self._bound: dict[tuple[str, int], Bound] = {}
        """By network and place."""

    def start(self) -> None:
        """Forget the sums of another slice. Their buffers are used again."""
        self._numbers.clear()
        self._taken = 0

    def prepare(self, place: int, link: ControlLink, request: Conditioning, *, images: int) -> None:
        """Upload the maps and weights of `link`, and compute what no step from the slice on changes."""
        own = self._buffers_of(place, link.network)
        self._backend.upload(own["conditioning_scale"], np.array([link.scale], np.float32))
        if "control_types" in own:
            self._backend.upload(own["control_types"], link.types)
        steps = range(request.begin, request.steps)
        active = [step for step in steps if link.active(step, request.steps)]
        sets = dict.fromkeys(link.present(step, request.steps) for step in active)
        self._numbers[place] = {}
        # The last sum stays where the network writes it.
        for left, present in reversed(list(enumerate(filter(None, sets)))):
            self._add_up(place, link, [link.plans[index] for index in present], images=images)
            self._numbers[place][present] = 0
            if left:
                self._taken += 1
                self._numbers[place][present] = self._taken
                self._backend.copy(self._sum(self._taken, own), own[_EMBEDDING])
        if () in sets:
            self._numbers[place][()] = _NONE
            if len(sets) == 1:  # the keys and values are needed all the same
                self._add_up(place, link, link.plans[:1], images=images)

    def release(self, network: str) -> None:
        """Drop every pass of the ControlNet `network`, whose engines will be closed."""
        for key in [key for key in self._bound if key[0] == network]:
            del self._bound[key]

    def number(self, place: int, link: ControlLink, step: int, steps: int) -> int:
        """The number of the sum that `link` takes in `step` of `steps`."""
        return self._numbers[place][link.present(step, steps)]

    def arrays(self, place: int, number: int) -> dict[str, DeviceArray]:
        """Every tensor of the link at `place`, with the sum `number` as the control's embedding."""
        own = self._buffers[place]
        return own if number == 0 else own | {_EMBEDDING: self._sum(number, own)}

    def _add_up(self, place: int, link: ControlLink, plans: Sequence[ControlPlan], *, images: int) -> None:
        """Compute the keys and values, and the sum of the embeddings of `plans`."""
        own = self._buffers_of(place, link.network)
        for index, plan in enumerate(plans):
            if plan.mode is not None:
                before = own[_EMBEDDING] if index else self._sum(_NONE, own)
                self._backend.copy(own[_BEFORE], before)
                self._backend.upload(own["control_mode"], np.array([plan.mode]))
                weight = np.array([link.embedding_weight(plan)], np.float32)
                self._backend.upload(own["control_weight"], weight)
            self._backend.upload(own["control_image"], np.broadcast_to(plan.map, (images, *plan.map.shape)))
            self._context(place, link.network).run()

    def _context(self, place: int, network: str) -> Bound:
        key = (network, place)
        if key not in self._bound:
            engine = self._engines[context_name(network)]
            self._bound[key] = bind_engine(engine, self._sizes, {**self._unet, **self._buffers[place]})
        return self._bound[key]

    def _sum(self, number: int, own: Mapping[str, DeviceArray]) -> DeviceArray:
        """A buffer like the embedding of a place whose buffers are `own`. It is zeros at first, and nothing
        writes that of number `_NONE`.
        """
        if number not in self._sums:
            embedding = own[_EMBEDDING]
            self._sums[number] = self._backend.allocate(embedding.shape, embedding.dtype.name)
        return self._sums[number]

    def _buffers_of(self, place: int, network: str) -> dict[str, DeviceArray]:
        """The buffers of `place`, with those that `network` and its context need."""
        own = self._buffers.get(place, {"prompt_embeds": self._unet["prompt_embeds"]})
        found = allocate_tensors(self._backend, self._engines[context_name(network)], self._sizes, shared=own)
        engine = self._engines[network]
        for spec in engine.network.inputs:
            if spec.name not in found and spec.name not in self._unet:
                shape, dtype = spec.shape(self._sizes), spec.numpy_dtype(engine.precision)
                found[spec.name] = self._backend.allocate(shape, dtype)
        self._buffers[place] = found
        return found


def bind_engine(engine: Engine, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> Bound:
    """`engine` with its own of `arrays`."""
    return engine.bind(sizes, {spec.name: arrays[spec.name] for spec in engine.network.tensors})
