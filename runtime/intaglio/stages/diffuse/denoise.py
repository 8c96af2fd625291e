"""State -> state over the steps [begin, end): the buffers, the chain of ControlNets, and the loop.

Axes: B images of the request, in passes of P images; N = 2P rows with guidance ([negative x P; positive x
P]), P without; n steps, K = 4 solver rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.architecture import Architecture
from intaglio.contract.sdxl import axis_sizes, context_name
from intaglio.contract.tensors import AxisSizes, NetworkSpec, TensorSpec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Backend, Bound, DeviceArray, Engine
from intaglio.stages.diffuse.conditioning import Conditioning, active_links
from intaglio.stages.diffuse.control_contexts import ControlContexts, bind_engine
from intaglio.stages.diffuse.passes import guidance_slices, image_passes
from intaglio.stages.diffuse.text import Embeddings

__all__ = ["ControlNetChain", "Denoiser", "Workspace"]

Floats = NDArray[np.float32]
ResidualSet = Mapping[str, DeviceArray]
"""Residuals by the name that they have as an input."""


class ControlNetChain:
    """The ControlNets of one shape of pass: each link adds its residuals to those of the one before.

    Set 0 of the residuals is zeros, which nothing writes. The chain writes sets 1 and 2 in turn.

    A ControlNet need not run in every step (`ControlLink.every`). The chain then starts from a set that
    still holds the sum of its first ControlNets. Those that run least often come first, so the others can be
    added to their sum again and again. With two sets there are two such sums: that of all ControlNets, and
    that of all but the last. Where neither serves, the whole chain runs. So each ControlNet runs in every
    step in which it is due, and some in further steps, when one before it is due.
    """

    def __init__(
        self,
        backend: Backend,
        engines: Mapping[str, Engine],
        *,
        sizes: AxisSizes,
        unet: Mapping[str, DeviceArray],
    ) -> None:
        """`unet` has every tensor of the UNet and of its context; its residuals become set 0."""
        self._backend = backend
        self._engines = engines
        self._sizes = sizes
        self._unet = unet
        self._residual_specs = _residual_inputs(engines["unet"].network)
        self._sets: list[ResidualSet] = [{spec.name: unet[spec.name] for spec in self._residual_specs}]
        self._contexts = ControlContexts(backend, engines, sizes=sizes, unet=unet)
        self._bound: dict[tuple[str, int, int, int], Bound] = {}
        """By network, place, the number of its embedding and the residual set that it reads."""
        self._held: dict[int, tuple[int, ...]] = {}
        """Places of the links whose sum a residual set holds, in the order of the chain."""

    def start(self) -> None:
        """Forget all sums: those of another request, or of other steps, are of no use."""
        self._held = {0: ()}
        self._contexts.start()

    def prepare(self, request: Conditioning, *, images: int) -> None:
        """Upload the maps and weights of the slice, and compute what no step changes."""
        self.start()
        steps = range(request.begin, request.end)
        places = {place for step in steps for place in active_links(request, step)}
        for place in sorted(places):
            self._contexts.prepare(place, request.links[place], request, images=images)

    def run(self, request: Conditioning, step: int) -> int:
        """Run the ControlNets of `step` that must run.

        Returns the number of the residual set that holds the sum of all that take part.
        """
        links = request.links
        active = active_links(request, step)
        chain = tuple(sorted(active, key=lambda place: -links[place].every))  # of equal ones, as requested
        self._forget({place for place in chain if links[place].due(step, request.steps)})
        current, done = self._longest_held(chain)
        for count in range(done + 1, len(chain) + 1):
            place = chain[count - 1]
            link = links[place]
            number = self._contexts.number(place, link, step, request.steps)
            self._bound_link(place, link.network, number, current).run()
            current = _next_set(current)
            self._held[current] = chain[:count]
        return current

    def _forget(self, due: set[int]) -> None:
        """Forget the sums in which a control takes part that is `due`."""
        for number, places in list(self._held.items()):
            if not due.isdisjoint(places):
                del self._held[number]

    def _longest_held(self, chain: tuple[int, ...]) -> tuple[int, int]:
        """The residual set that holds the sum of most of the first controls of `chain`, and their number."""
        number, places = max(
            ((number, places) for number, places in self._held.items() if chain[: len(places)] == places),
            key=lambda held: len(held[1]),
        )
        return number, len(places)

    def residuals(self, number: int) -> ResidualSet:
        """Residual set `number`, made when first needed: without a second control there is no third set."""
        precision = self._engines["unet"].precision
        while len(self._sets) <= number:
            made: dict[str, DeviceArray] = {}
            for spec in self._residual_specs:
                made[spec.name] = self._backend.allocate(spec.shape(self._sizes), spec.numpy_dtype(precision))
            self._sets.append(made)
        return self._sets[number]

    def _bound_link(self, place: int, network: str, number: int, current: int) -> Bound:
        """The link at `place` with its embedding `number`, from residual set `current` to the next."""
        key = (network, place, number, current)
        if key not in self._bound:
            target = self.residuals(_next_set(current))
            outputs = {f"{name}_out": array for name, array in target.items()}
            own = self._contexts.arrays(place, number)
            arrays = {**self._unet, **own, **self.residuals(current), **outputs}
            self._bound[key] = bind_engine(self._engines[network], self._sizes, arrays)
        return self._bound[key]


class Workspace:
    """Buffers of one shape of pass and the engines bound to them; kept from request to request."""

    def __init__(self, backend: Backend, engines: Mapping[str, Engine], *, sizes: AxisSizes) -> None:
        self._backend = backend
        self._sizes = sizes
        self._engines = engines
        context_engine = engines[context_name("unet")]
        context = allocate_tensors(backend, context_engine, sizes)
        self.unet = allocate_tensors(backend, engines["unet"], sizes, shared=context)
        """Every tensor of the UNet and of its context."""
        self._chain = ControlNetChain(backend, engines, sizes=sizes, unet=self.unet)
        self._context: Bound | None = None
        self._bound: dict[int, Bound] = {}
        """The UNet by the residual set that it reads."""
        self._tables: dict[str, DeviceArray] = {}
        """Values of every step, of the shapes of the last slice. They are kept because freeing memory on a
        card waits for everything that runs.
        """

    def prepare(self, request: Conditioning, embeddings: Sequence[Embeddings], images: slice) -> None:
        """Upload what no step of a pass changes, and compute what follows from that alone."""
        count = images.stop - images.start
        upload = self._backend.upload
        upload(self.unet["prompt_embeds"], _rows([prompt.context for prompt in embeddings], count))
        upload(self.unet["pooled_embeds"], _rows([prompt.pooled for prompt in embeddings], count))
        upload(self.unet["time_ids"], np.repeat(request.time_ids, count, axis=0))
        upload(self.unet["guidance_scale"], np.array([request.guidance_scale], np.float32))
        upload(self.unet["guidance_rescale"], np.array([request.guidance_rescale], np.float32))
        if self._context is None:
            self._context = bind_engine(self._engines[context_name("unet")], self._sizes, self.unet)
        self._context.run()
        self._chain.prepare(request, images=count)

    def run(self, request: Conditioning, state: Floats, images: slice) -> Floats:
        """`state` [K, P, 4, h, w] after the steps [begin, end) of `request`.

        The loop enqueues small copies and engine passes; nothing in it waits for the device.
        """
        backend = self._backend
        unet = self.unet
        backend.upload(unet["state"], state)
        tables = self._upload_tables(request, images)
        single_noise = len(request.noise) == 1
        if single_noise:
            backend.copy(unet["noise"], tables["noise"][0])
        for step in range(request.begin, request.end):
            row = step - request.begin
            for name in ("timestep", "input_scale", "coefficients"):
                backend.copy(unet[name], tables[name][row])
            if not single_noise:
                backend.copy(unet["noise"], tables["noise"][row])
            residuals = self._chain.run(request, step)
            self._bound_unet(residuals).run()
            backend.copy(unet["state"], unet["new_state"])
        after: Floats = backend.download(unet["state"])
        return after

    def _upload_tables(self, request: Conditioning, images: slice) -> Mapping[str, DeviceArray]:
        """Per-step values of the slice, one upload each."""
        steps = slice(request.begin, request.end)
        noise = request.noise if len(request.noise) == 1 else request.noise[steps]
        values = {
            "timestep": request.timesteps[steps, None],
            "input_scale": request.input_scale[steps, None],
            "coefficients": request.coefficients[steps],
            "noise": noise[:, images],
        }
        for name, value in values.items():
            if name not in self._tables or self._tables[name].shape != value.shape:
                self._tables.pop(name, None)  # first: both together would be the peak of memory
                self._tables[name] = self._backend.allocate(value.shape, "float32")
            self._backend.upload(self._tables[name], value)
        return self._tables

    def _bound_unet(self, residuals: int) -> Bound:
        if residuals not in self._bound:
            arrays = {**self.unet, **self._chain.residuals(residuals)}
            self._bound[residuals] = bind_engine(self._engines["unet"], self._sizes, arrays)
        return self._bound[residuals]


class Denoiser:
    """UNet and ControlNets as a function of a request's conditioning."""

    def __init__(
        self,
        backend: Backend,
        engines: Mapping[str, Engine],
        *,
        architecture: Architecture,
        batches: Sequence[int],
    ) -> None:
        """`batches` are the numbers of images that a pass may have."""
        self._backend = backend
        self._engines = engines
        self._architecture = architecture
        self._batches = batches
        self._workspaces: dict[tuple[int, ...], Workspace] = {}

    def __call__(self, request: Conditioning, embeddings: Sequence[Embeddings]) -> Floats:
        """State [K, B, 4, h, w] after the steps [begin, end), images in passes.

        `embeddings` has one entry for each prompt of `request`.
        """
        parts: list[Floats] = []
        for images in image_passes(request.state.shape[1], self._batches):
            state = request.state[:, images]
            for piece in guidance_slices(request):
                workspace = self._workspace(piece, images.stop - images.start)
                workspace.prepare(piece, embeddings[-piece.prompts :], images)
                state = workspace.run(piece, state, images)
            parts.append(state)
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        """Free all buffers."""
        self._workspaces.clear()

    def _workspace(self, request: Conditioning, images: int) -> Workspace:
        scale = self._architecture.vae_scale
        height, width = request.state.shape[3] * scale, request.state.shape[4] * scale
        key = (width, height, images, request.chunks, int(request.guidance))
        if key in self._workspaces:
            return self._workspaces[key]
        # A residual set and its bindings are the bulk of a workspace: only the shape in use is kept, with
        # guidance and without.
        self._backend.synchronize()
        for other in [other for other in self._workspaces if other[:-1] != key[:-1]]:
            del self._workspaces[other]
        sizes = axis_sizes(
            self._architecture,
            width=width,
            height=height,
            images=images,
            guidance=request.guidance,
            chunks=request.chunks,
        )
        self._workspaces[key] = Workspace(self._backend, self._engines, sizes=sizes)
        return self._workspaces[key]


def _next_set(current: int) -> int:
    return 2 if current == 1 else 1


def _residual_inputs(network: NetworkSpec) -> list[TensorSpec]:
    return [spec for spec in network.inputs if spec.name.startswith(("down_residual_", "mid_residual"))]


def _rows(values: Sequence[Floats], images: int) -> Floats:
    """[N, ...]: each prompt's value once an image, prompts one after another."""
    return np.repeat(np.stack(values), images, axis=0)
