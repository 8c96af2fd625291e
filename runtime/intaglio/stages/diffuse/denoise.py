"""State -> state over the steps [begin, end): the buffers, the chain of ControlNets, and the loop.

Axes: B images of the request, in passes of P images; N = 2P rows with guidance ([negative x P; positive x
P]), P without; n steps, K = 4 solver rows.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.architecture import Architecture
from intaglio.contract.sdxl import axis_sizes, context_name
from intaglio.contract.tensors import AxisSizes, NetworkSpec, TensorSpec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Backend, Bound, DeviceArray, Engine, Together
from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.control_contexts import ControlContexts, bind_engine
from intaglio.stages.diffuse.control_schedule import ZEROS, ControlRun, ResidualSums, step_controls
from intaglio.stages.diffuse.passes import guidance_slices, image_passes
from intaglio.stages.diffuse.text import Embeddings

__all__ = ["ControlNetChain", "Denoiser", "Workspace"]

Floats = NDArray[np.float32]
ResidualSet = Mapping[str, DeviceArray]
"""Residuals by the name that they have as an input."""


class ControlNetChain:
    """The ControlNets of one shape of pass: each link adds its residuals to those of the one before.

    `ResidualSums` says which run in a step, and between which residual sets. Nothing writes set 0, the zeros.
    A device that runs small passes together gives each link a residual set of its own, and adds these up.
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
        zeros: ResidualSet = {spec.name: unet[spec.name] for spec in self._residual_specs}
        self._sets = {ZEROS: zeros}
        self._contexts = ControlContexts(backend, engines, sizes=sizes, unet=unet)
        self._bound: dict[tuple[str, int, ControlRun], Bound] = {}
        """By network, the number of its embedding, place and residual sets."""
        self._sums = ResidualSums()

    def start(self) -> None:
        """Forget all sums: those of another request, or of other steps, are of no use."""
        self._sums = ResidualSums()
        self._contexts.start()

    def release(self, network: str) -> None:
        """Drop every pass of the ControlNet `network`, whose engines will be closed."""
        self._contexts.release(network)
        for key in [key for key in self._bound if key[0] == network]:
            del self._bound[key]

    def prepare(self, request: Conditioning, *, images: int) -> None:
        """Upload the maps and weights from the slice on, and compute what no step changes."""
        self.start()
        steps = range(request.begin, request.steps)
        for place, link in enumerate(request.links):
            if any(link.active(step, request.steps) for step in steps):
                self._contexts.prepare(place, link, request, images=images)

    def run(self, request: Conditioning, step: int) -> int:
        """Run the ControlNets of `step` that must run.

        Returns the number of the residual set that holds the sum of all that take part.
        """
        runs, current = self._sums.advance(step_controls(request.links, step, request.steps))
        together = self._backend.together
        engines = [self._engines[request.links[run.place].network] for run in runs]
        if together is not None and len(runs) > 1 and together.takes(engines):
            self._run_together(together, runs, request, step)
        else:
            for run in runs:
                self._pass_of(run, request, step).run()
        return current

    def _run_together(
        self, together: Together, runs: Sequence[ControlRun], request: Conditioning, step: int
    ) -> None:
        """What `runs` are as a chain, bit for bit: the links together, and then their sums in order."""
        own = [run if run.source == ZEROS else run.apart() for run in runs]
        together.run([self._pass_of(run, request, step) for run in own])
        for run, apart in zip(runs, own, strict=True):
            if apart is not run:
                before, added = self.residuals(run.source), self.residuals(apart.target)
                for name, target in self.residuals(run.target).items():
                    together.add(target, before[name], added[name])

    def residuals(self, number: int) -> ResidualSet:
        """Residual set `number`, made when first needed."""
        if number not in self._sets:
            precision = self._engines["unet"].precision
            made: dict[str, DeviceArray] = {}
            for spec in self._residual_specs:
                made[spec.name] = self._backend.allocate(spec.shape(self._sizes), spec.numpy_dtype(precision))
            self._sets[number] = made
        return self._sets[number]

    def _pass_of(self, run: ControlRun, request: Conditioning, step: int) -> Bound:
        """The link of `run`, with the embedding that it takes in `step`."""
        link = request.links[run.place]
        number = self._contexts.number(run.place, link, step, request.steps)
        key = (link.network, number, run)
        if key not in self._bound:
            outputs = {f"{name}_out": array for name, array in self.residuals(run.target).items()}
            own = self._contexts.arrays(run.place, number)
            arrays = {**self._unet, **own, **self.residuals(run.source), **outputs}
            self._bound[key] = bind_engine(self._engines[link.network], self._sizes, arrays)
        return self._bound[key]


@dataclass(frozen=True, slots=True)
class Continuation:
    """A slice that may follow in a workspace as it is."""

    trajectory: weakref.ref[object]
    """It is not kept alive here: a picture that is over has maps and noise that nobody needs."""
    step: int
    images: slice


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
        self._continues: Continuation | None = None
        """What the buffers are ready for: the next step of the slice that ran last."""

    def release(self, network: str) -> None:
        """Drop every pass of the ControlNet `network`, whose engines will be closed."""
        self._chain.release(network)

    def prepare(
        self,
        request: Conditioning,
        embeddings: Sequence[Embeddings],
        images: slice,
        *,
        trajectory: object | None,
    ) -> None:
        """Upload what no step of a pass changes, and compute what follows from that alone.

        Where the last slice was the one before of the same `trajectory`, all of it is there still.
        """
        if trajectory is not None:
            follows = Continuation(weakref.ref(trajectory), request.begin, images)
            if self._continues == follows:
                return
        self._continues = None
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

    def run(
        self, request: Conditioning, state: Floats, images: slice, *, trajectory: object | None
    ) -> Floats:
        """`state` [K, P, 4, h, w] after the steps [begin, end) of `request`.

        The loop enqueues small copies and engine passes; nothing in it waits for the device.
        """
        backend = self._backend
        unet = self.unet
        self._continues = None  # until all of it has run
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
        if trajectory is not None:
            self._continues = Continuation(weakref.ref(trajectory), request.end, images)
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
        """`engines` are looked up when they are needed, so ControlNets may come and go between requests.

        `batches` are the numbers of images that a pass may have.
        """
        self._backend = backend
        self._engines = engines
        self._architecture = architecture
        self._batches = batches
        self._workspaces: dict[tuple[int, ...], Workspace] = {}

    def __call__(
        self, request: Conditioning, embeddings: Sequence[Embeddings], *, trajectory: object | None = None
    ) -> Floats:
        """State [K, B, 4, h, w] after the steps [begin, end), images in passes.

        `embeddings` has one entry for each prompt of `request`. Slices of one picture name the same
        `trajectory`; one that directly follows another is spared what no step changes.
        """
        parts: list[Floats] = []
        for images in image_passes(request.state.shape[1], self._batches):
            state = request.state[:, images]
            for piece in guidance_slices(request):
                workspace = self._workspace(piece, images.stop - images.start)
                own = embeddings[-piece.prompts :]
                workspace.prepare(piece, own, images, trajectory=trajectory)
                state = workspace.run(piece, state, images, trajectory=trajectory)
            parts.append(state)
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def release(self, network: str) -> None:
        """Drop every pass of the ControlNet `network`, whose engines will be closed. Its buffers stay: those
        of a place in a request serve every ControlNet.
        """
        for workspace in self._workspaces.values():
            workspace.release(network)

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


def _residual_inputs(network: NetworkSpec) -> list[TensorSpec]:
    return [spec for spec in network.inputs if spec.name.startswith(("down_residual_", "mid_residual"))]


def _rows(values: Sequence[Floats], images: int) -> Floats:
    """[N, ...]: each prompt's value once an image, prompts one after another."""
    return np.repeat(np.stack(values), images, axis=0)
