"""Conditioning and state -> state, and pixels when they are asked for: text encoders, ControlNets, UNet, VAE.

`Diffuse.__call__` is a pure function of its tensors. A slice [begin, end) takes a state and gives a state, so
slices compose to the whole run. A `Drawing` is a picture between two of its slices. Between requests the
stage keeps buffers, a cache of text embeddings and the resident LoRAs, and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.file_checks import FileChecks
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.ports import Tensors, string_tensor
from intaglio.contract.sdxl import LORA_MERGE, control_of, opened_networks
from intaglio.engines.host_call import HostCall
from intaglio.engines.interface import Array, Backend, Engine
from intaglio.engines.opening import open_backend
from intaglio.engines.weights_of_several import WeightsOfSeveral
from intaglio.errors import EngineMismatch, InvalidRequest, failed_device
from intaglio.loras.files import Component
from intaglio.loras.merge import LoraMerge
from intaglio.loras.sets import set_digest
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SWAPPED, SwapLayers, network_of_weight, open_layers
from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.controlnets import ControlNetCounts, ResidentControlNets
from intaglio.stages.diffuse.denoise import Denoiser
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.engine_files import EngineFiles
from intaglio.stages.diffuse.incoming import IncomingRequests, Wanted, wanted_of
from intaglio.stages.diffuse.text import TEXT_ENCODERS, TextEncoders
from intaglio.stages.diffuse.vae import VaeDecoder
from intaglio.stages.diffuse.warm_up import warm_up_controls, warm_up_tensors

__all__ = ["Diffuse", "Wanted"]

Floats = NDArray[np.float32]
_VAE: Final = "vae_decoder"


@dataclass(frozen=True, slots=True)
class _Steps:
    """What a request passes through, opened."""

    encode: TextEncoders
    denoise: Denoiser
    decode: VaeDecoder


class Diffuse:
    """The stage. Entering it opens the backend and every engine; leaving it frees their memory."""

    def __init__(
        self, manifest: BuildManifest, folder: Path, *, backend: Backend | None = None, hashes: bool = True
    ) -> None:
        """`backend` replaces the manifest's own (tests). Without `hashes` only the sizes of files are
        compared with the build, since another process compares the rest at the same time.
        """
        self._manifest = manifest
        self._folder = folder
        self._given_backend = backend
        self._engines: dict[str, Engine] = {}
        self._opened: _Steps | None = None
        self._hashes = hashes
        self._store = LoraStore(folder / LORAS_FOLDER)
        self.controlnets: ResidentControlNets
        """Opens ControlNets as requests need them, and closes others; made when the stage is entered."""
        self._incoming: IncomingRequests
        """Reads requests; made when the stage is entered."""
        self.loras: LoraSwitch | None = None
        """Applies LoRAs; None where the set is fused."""

    def __enter__(self) -> Self:
        """Open everything.

        Raises:
            EngineMismatch: an engine is missing, damaged or made for another machine.
            ConfigError: a tokenizer is damaged.
            MissingExtra: the engines' library is not installed.
        """
        manifest = self._manifest
        merges = manifest.swap != "off" and manifest.execution.lora_staging_mib > 0
        needed = opened_networks(manifest.control_networks, merges=merges)
        for name in needed:
            if name not in manifest.networks:
                raise EngineMismatch(f"{name}: not in the manifest", command=manifest.rebuild)
        self._incoming = IncomingRequests(manifest, self._folder, store=self._store)
        self._backend = self._given_backend or open_backend(manifest)
        with ExitStack() as stack:
            stack.callback(self._backend.close)
            stack.callback(self._engines.clear)
            self._open_engines(needed, stack)
            self._opened = self._open_steps(stack)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        self._closing.close()

    def __call__(
        self, tensors: Tensors, *, wanted: Sequence[str] = ("pixels", "state", "timings")
    ) -> dict[str, Array]:
        """The outputs of `models.DIFFUSE` named in `wanted`; the VAE runs only for `pixels`.

        Raises:
            InvalidRequest: tensors that do not fit each other or the build, that exceed the limits of a
                request, or for which the networks overflow; LoRAs that can never be applied.
            SwapFailed: its LoRAs could not be applied now; the message says which are resident instead.
            DeviceFailed: the card computes nothing more.
        """
        drawing = Drawing(self.read(tensors))
        self.advance(drawing)
        return self.finish(drawing, wanted)

    def advance(self, drawing: Drawing) -> None:
        """Run the next slice of `drawing`, whose request `read` has let in. It may have waited since then.

        What was published meanwhile does not make it wrong. Where a file of its LoRAs is gone by now, that is
        a SwapFailed, and the caller may ask again. Slices of other pictures may come between those of a
        drawing if they need no swap of LoRAs or ControlNets.

        Raises:
            InvalidRequest, SwapFailed, DeviceFailed: as `__call__`.
        """
        with self._judged():
            self._advance(drawing)

    def finish(self, drawing: Drawing, wanted: Sequence[str]) -> dict[str, Array]:
        """The outputs named in `wanted` of a finished drawing.

        Raises:
            InvalidRequest: the networks overflow.
            DeviceFailed: the card computes nothing more.
        """
        outputs: dict[str, Array] = {"state": drawing.state}
        with self._judged():
            if "pixels" in wanted:
                started = time.perf_counter()
                outputs["pixels"] = self._steps.decode(drawing.state[0])
                drawing.add_seconds("vae", started)
        outputs["timings"] = string_tensor(json.dumps(drawing.request.timings | drawing.seconds))
        return {name: outputs[name] for name in wanted if name in outputs}

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except InvalidRequest:
            raise
        except Exception as error:
            # Whatever step failed: the card itself may have, and then it says so here.
            if failed_device(error) is None:
                self._backend.synchronize()
            raise

    def _advance(self, drawing: Drawing) -> None:
        request = drawing.request
        piece = replace(request, begin=drawing.step, end=drawing.next_end(), state=drawing.state)
        now = time.perf_counter()
        if self._apply_loras(request.loras):
            now = drawing.add_seconds("lora_swap", now)
        if self.controlnets.ensure(request.active_controlnets):  # of all slices
            now = drawing.add_seconds("controlnet_swap", now)
        empty = piece.begin == piece.end
        if drawing.embeddings is None and not empty:
            drawing.embeddings = self._steps.encode(request, weights_digest=self._text_digest)
        now = drawing.add_seconds("text_encoders", now)
        if not empty and drawing.embeddings is not None:
            drawing.state = self._steps.denoise(piece, drawing.embeddings, trajectory=drawing)
        drawing.add_seconds("denoise", now)
        drawing.step = piece.end

    def read(self, tensors: Tensors) -> Conditioning:
        """The checked request; any thread may call this.

        Raises:
            InvalidRequest: tensors that do not fit each other or the build, or that exceed the limits of a
                request; LoRAs that `preprocess` would not have asked for.
            SwapFailed: the last publication took away what `preprocess` named.
            ConfigError: the registry of LoRAs is damaged.
        """
        return self._incoming.read(tensors, is_resident=self._is_resident)

    def wanted(self, request: Conditioning) -> Wanted:
        """What must be resident for `request`; any thread may call this."""
        return wanted_of(request)

    def needs_swap(self, wanted: Wanted) -> bool:
        """Whether a request that wants this has to wait for LoRAs or ControlNets that are not resident."""
        loras = set_digest(()) if self.loras is None else self.loras.digest
        return wanted.is_missing(loras, self.controlnets.resident)

    def use_in_this_thread(self) -> None:
        """Tell the backend that this thread uses it from now on, not the one that entered the stage."""
        self._backend.use_in_this_thread()

    def warm_up(self) -> None:
        """Run steps of the first built size in each guidance mode, with every control.

        The first request then finds everything set up.
        """
        manifest = self._manifest
        self._steps.encode.warm_up(manifest.architecture.tokens)
        for controls in warm_up_controls(manifest):
            for guidance in manifest.profiles.guidance_modes:
                self(warm_up_tensors(manifest, guidance=guidance, controls=controls))
        self.controlnets.counts = ControlNetCounts()  # nobody has waited for these
        if self.loras is not None:
            self.loras.warm_up()

    @property
    def manifest(self) -> BuildManifest:
        """The build that is served."""
        return self._manifest

    @property
    def _steps(self) -> _Steps:
        if self._opened is None:
            raise RuntimeError("the stage is closed; enter it first")
        return self._opened

    @property
    def _text_digest(self) -> str:
        """Digest of what LoRAs made of the text encoders' weights."""
        return "" if self.loras is None else self.loras.text_digest

    def _is_resident(self, loras: tuple[ResolvedLora, ...]) -> bool:
        resident = None if self.loras is None else self.loras.resident
        return resident is not None and set_digest(resident) == set_digest(loras)

    def _apply_loras(self, loras: tuple[ResolvedLora, ...]) -> bool:
        """Make `loras` the resident set, as every image's first step; whether that took a swap."""
        return self.loras is not None and self.loras.ensure(loras) > 0

    # --- opening ---

    def _open_engines(self, needed: Sequence[str], stack: ExitStack) -> None:
        """Load the engines while their files are hashed, those of all ControlNets too."""
        manifest = self._manifest
        files = EngineFiles(manifest, self._folder, self._backend)
        with FileChecks(self._folder, command=manifest.rebuild, hashes=self._hashes) as checks:
            files.start(checks, needed)
            layers = None if manifest.swap == "off" else open_layers(manifest, self._folder)
            for name in needed:
                if not control_of(name):
                    self._engines[name] = files.load(name, replaceable=_replaceable(layers, name))
                    stack.callback(self._engines[name].close)
            self.controlnets = ResidentControlNets(
                self._engines,
                places=manifest.resident_controlnets,
                opener=files,
                release=self._release_controlnet,
            )
            stack.callback(self.controlnets.close)
            self.controlnets.ensure(manifest.control_networks[: manifest.resident_controlnets])
            if layers is not None:
                self.loras = _open_switch(
                    manifest, layers, backend=self._backend, engines=self._engines, store=self._store
                )

    def _release_controlnet(self, network: str) -> None:
        if self._opened is not None:
            self._opened.denoise.release(network)

    def _open_steps(self, stack: ExitStack) -> _Steps:
        manifest = self._manifest
        calls: dict[str, HostCall] = {}
        for name in (*TEXT_ENCODERS, _VAE):
            calls[name] = HostCall(self._backend, self._engines[name])
            stack.callback(calls[name].close)
        denoiser = Denoiser(
            self._backend,
            self._engines,
            architecture=manifest.architecture,
            batches=manifest.profiles.batches,
        )
        stack.callback(denoiser.close)
        encoders = TextEncoders(calls, kept=manifest.execution.embedding_cache)
        return _Steps(encoders, denoiser, VaeDecoder(calls[_VAE], manifest=manifest))


def _open_switch(
    manifest: BuildManifest,
    layers: SwapLayers,
    *,
    backend: Backend,
    engines: Mapping[str, Engine],
    store: LoraStore,
) -> LoraSwitch:
    """What applies LoRAs to `engines`, which hold the pristine weights now."""
    components: dict[Component, WeightsOfSeveral] = {}
    for component, networks in SWAPPED.items():
        own = {name: engines[name] for name in networks}
        components[component] = WeightsOfSeveral(own, functools.partial(network_of_weight, component))
    execution = manifest.execution
    threads = execution.threads or len(os.sched_getaffinity(0))
    merge = None
    if LORA_MERGE in engines:
        staging_bytes = execution.lora_staging_mib << 20
        merge = LoraMerge(backend, engines[LORA_MERGE], staging_bytes=staging_bytes)
    return LoraSwitch(components, layers, store=store, threads=threads, merge=merge)


def _replaceable(layers: SwapLayers | None, network: str) -> dict[str, Array]:
    """Pristine values of the weights of `network` that LoRAs may change."""
    component = next((one for one, networks in SWAPPED.items() if network in networks), None)
    if layers is None or component is None:
        return {}
    file = layers.pristine[component]
    return {name: file.read(name) for name in file.tensors if network_of_weight(component, name) == network}
