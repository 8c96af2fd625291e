"""Conditioning and state -> state, and pixels when they are asked for: text encoders, ControlNets, UNet, VAE.

`Diffuse.__call__` is a pure function of its tensors: a slice [begin, end) takes a state and gives a state, so
slices compose to the whole run and nothing is kept between requests but buffers and a cache of text
embeddings.

Axes: B images of the request, in passes of P images; N = 2P rows with guidance ([negative x P; positive x
P]), P without; R prompts, k chunks, T = 77 k, n steps, c controls, K = 4 solver rows.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.file_checks import FileChecks
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import DIFFUSE
from intaglio.contract.ports import Tensors, read_tensors, scalar, string_tensor
from intaglio.contract.sdxl import LORA_MERGE, axis_sizes, context_name, controlnet_name, network_spec
from intaglio.contract.tensors import AxisSizes, NetworkSpec, TensorSpec
from intaglio.engines.interface import (
    Array,
    Backend,
    Bound,
    DeviceArray,
    Engine,
    HostCall,
    WeightsOfSeveral,
    allocate_tensors,
)
from intaglio.engines.opening import open_backend
from intaglio.errors import EngineMismatch, IntaglioError, InvalidRequest
from intaglio.loras.merge import LoraMerge
from intaglio.loras.sets import ResolvedLora, set_from_json, set_text
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SWAPPED, SwapLayers, network_of_weight, open_layers
from intaglio.recently_used import RecentlyUsed
from intaglio.sampling.tiles import blend_tiles, latent_tiling

__all__ = ["Diffuse", "active_controls", "image_passes"]

Floats = NDArray[np.float32]
_TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One prompt through both encoders: context [T, C], pooled [P]; float32, weights applied."""

    context: Floats
    pooled: Floats


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """One control of a request: which ControlNet, from which map, how strongly, in which part of the
    trajectory.
    """

    control: str
    map: NDArray[np.uint8]
    """[H, W, RGB]."""
    weight: float
    begin: float
    end: float

    def active(self, step: int, steps: int) -> bool:
        """Whether it takes part in `step` of `steps` (diffusers' `control_guidance_start` and `_end`)."""
        return self.weight != 0 and _inside((self.begin, self.end), step, steps)


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A request's tensors, checked."""

    token_ids: NDArray[np.int64]
    token_weights: Floats
    zero_negative: bool
    time_ids: Floats
    guidance_scale: float
    timesteps: Floats
    input_scale: Floats
    coefficients: Floats
    noise: Floats
    state: Floats
    controls: tuple[ControlPlan, ...]
    guidance_window: tuple[float, float]
    loras: tuple[ResolvedLora, ...]
    begin: int
    end: int
    timings: dict[str, float]

    @property
    def guidance(self) -> bool:
        """Whether both prompts take part."""
        return self.token_ids.shape[1] == 2

    def guided(self, step: int) -> bool:
        """Whether the negative prompt takes part in `step`."""
        return _inside(self.guidance_window, step, self.steps)

    @property
    def steps(self) -> int:
        """n, of the whole trajectory."""
        return len(self.timesteps)


ResidualSet = dict[str, DeviceArray]
"""Residuals by the name that they have as an input."""


@dataclass(slots=True)
class Workspace:
    """Buffers of one shape of pass and the engines bound to them; kept from request to request."""

    sizes: AxisSizes
    unet: dict[str, DeviceArray]
    """Every tensor of the UNet and of its context; its residuals are the zero set, which nothing writes."""
    residuals: list[ResidualSet]
    """Set 0 is the zeros; a chain of ControlNets writes sets 1 and 2 in turn."""
    controls: dict[int, dict[str, DeviceArray]] = field(default_factory=dict)
    """Scale, image and context by place in the request: every ControlNet has the same shapes."""
    bound: dict[tuple[str, int, int], Bound] = field(default_factory=dict)
    """By (network, place in the request, residual set read)."""
    tables: dict[str, DeviceArray] = field(default_factory=dict)
    """Values of every step, of the shapes of the last slice: on a card, to free memory waits for all that
    runs.
    """


class Diffuse:
    """The stage; entering it opens the backend and every engine, leaving gives the memory back."""

    def __init__(self, manifest: BuildManifest, folder: Path, *, backend: Backend | None = None) -> None:
        """`backend` replaces the manifest's own (tests)."""
        self._manifest = manifest
        self._folder = folder
        self._given_backend = backend
        self._cache: RecentlyUsed[Embeddings] = RecentlyUsed(manifest.execution.embedding_cache)
        """By digest of tokens and weights."""
        self._workspaces: OrderedDict[tuple[int, ...], Workspace] = OrderedDict()
        self._engines: dict[str, Engine] = {}
        self._calls: dict[str, HostCall] = {}
        """Networks that run once an image."""
        self.loras: LoraSwitch | None = None
        """Who puts LoRAs on; None where the set is fused."""

    def __enter__(self) -> Self:
        """Raises EngineMismatch (a missing, damaged or foreign engine) and MissingExtra."""
        manifest = self._manifest
        merges = [LORA_MERGE] if manifest.swap != "off" and manifest.execution.lora_staging_mib else []
        steps = ["unet", *map(controlnet_name, manifest.controlnets)]
        needed = [*_TEXT_ENCODERS, *steps, *map(context_name, steps), "vae_decoder", *merges]
        for name in needed:
            if name not in manifest.networks:
                raise EngineMismatch(f"{name}: not in the manifest", command=manifest.rebuild)
        self._backend = self._given_backend or open_backend(manifest)
        try:
            with FileChecks(self._folder, command=manifest.rebuild) as checks:
                for name in needed:
                    checks.start(manifest.networks[name].files)
                layers = None if manifest.swap == "off" else open_layers(manifest, self._folder)
                for name in needed:
                    path, spec = (
                        self._folder / manifest.networks[name].path,
                        network_spec(name, manifest.architecture),
                    )
                    values = _replaceable(layers, name)
                    self._engines[name] = self._backend.load(
                        spec, path, precision=manifest.precision, replaceable=values
                    )
                self.loras = None if layers is None else self._switch(layers)
        except BaseException:
            self._close()
            raise
        self._calls = {
            name: HostCall(self._backend, self._engines[name]) for name in (*_TEXT_ENCODERS, "vae_decoder")
        }
        return self

    def _switch(self, layers: SwapLayers) -> LoraSwitch:
        engines = {
            component: WeightsOfSeveral(
                {name: self._engines[name] for name in networks},
                functools.partial(network_of_weight, component),
            )
            for component, networks in SWAPPED.items()
        }
        execution = self._manifest.execution
        threads = execution.threads or len(os.sched_getaffinity(0))
        merge = None
        if LORA_MERGE in self._engines:
            merge = LoraMerge(
                self._backend, self._engines[LORA_MERGE], staging_bytes=execution.lora_staging_mib << 20
            )
        return LoraSwitch(
            engines, layers, store=LoraStore(self._folder / LORAS_FOLDER), threads=threads, merge=merge
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._workspaces.clear()
        self._calls.clear()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._backend.close()

    def __call__(
        self, tensors: Tensors, *, wanted: Sequence[str] = ("pixels", "state", "timings")
    ) -> dict[str, Array]:
        """The outputs of `models.DIFFUSE` named in `wanted`; the VAE runs only for `pixels`.

        Raises:
            InvalidRequest: tensors that do not fit each other or the build.
            SwapFailed: its LoRAs could not be put on; those before still are.
            IntaglioError: the picture has values that are not finite.
        """
        clock = Clock()
        request = self._conditioning(tensors)
        if self._put_on(request.loras):
            clock.lap("lora_swap")
        embeddings = self._encode(request)
        clock.lap("text_encoders")
        state = self._denoise(request, embeddings)
        clock.lap("denoise")
        outputs: dict[str, Array] = {"state": state}
        if "pixels" in wanted:
            outputs["pixels"] = self._decode(state[0])
            clock.lap("vae")
        outputs["timings"] = string_tensor(json.dumps(request.timings | clock.laps))
        return {name: outputs[name] for name in wanted}

    def _put_on(self, loras: tuple[ResolvedLora, ...]) -> bool:
        """Make `loras` the resident set, as every image's first step; whether that took a swap."""
        if self.loras is not None:
            return self.loras.ensure(loras) > 0
        if loras:
            raise InvalidRequest("loras", set_text(loras), allowed="none: this build does not swap LoRAs")
        return False

    def warm_up(self) -> None:
        """Run one step of the first built size in each guidance mode with every control: the first request
        finds all set up.
        """
        for rows in (2, 1):  # both prompts, and one where the other's embeddings are kept
            for name in _TEXT_ENCODERS:
                self._calls[name](
                    {"C": rows}, input_ids=np.zeros((rows, self._manifest.architecture.tokens), np.int64)
                )
        width, height = self._manifest.profiles.sizes[0]
        for guidance in self._manifest.profiles.guidance_modes:
            self(_warm_up_tensors(self._manifest, width=width, height=height, guidance=guidance))
        if self.loras is not None:
            self.loras.warm_up()

    # --- request ----------------------------------------------------------------------------------------------------

    def _conditioning(self, tensors: Tensors) -> Conditioning:
        found = read_tensors(tensors, DIFFUSE.inputs)
        steps = len(found["timesteps"])
        begin = scalar(found, DIFFUSE.input("begin"), 0)
        end = scalar(found, DIFFUSE.input("end"), steps)
        if not 0 <= begin <= end <= steps:
            raise InvalidRequest("begin", f"slice {begin} to {end}", allowed=f"0 <= begin <= end <= {steps}")
        request = Conditioning(
            token_ids=found["token_ids"],
            token_weights=found["token_weights"],
            zero_negative=bool(found["zero_negative"][0]),
            time_ids=found["time_ids"],
            guidance_scale=float(found["guidance_scale"][0]),
            timesteps=found["timesteps"],
            input_scale=found["input_scale"],
            coefficients=found["coefficients"],
            noise=found["noise"],
            state=found["state"],
            controls=tuple(self._control_plans(found)),
            guidance_window=_window(found),
            loras=_loras(found),
            begin=begin,
            end=end,
            timings=json.loads(found["timings"][0]) if "timings" in found else {},
        )
        self._check(request)
        return request

    def _control_plans(self, found: Tensors) -> Iterator[ControlPlan]:
        entries: list[dict[str, Any]] = json.loads(found["controls"][0])
        maps = found["control_maps"]
        if entries and len(entries) != len(maps):
            raise InvalidRequest(
                "control_maps", f"{len(maps)} maps for {len(entries)} controls", allowed="one map a control"
            )
        for entry, pixels in zip(entries, maps, strict=False):
            if entry["control"] not in self._manifest.controlnets:
                raise InvalidRequest(
                    "controls",
                    f"{entry['control']!r} is unknown",
                    allowed=", ".join(self._manifest.controlnets),
                )
            yield ControlPlan(
                entry["control"], pixels, float(entry["weight"]), float(entry["begin"]), float(entry["end"])
            )

    def _check(self, request: Conditioning) -> None:
        """Tensors agree with each other and with a built size; slices come from other processes, so nothing
        is assumed.
        """
        images, channels, height, width = request.state.shape[1:]
        scale, steps = self._manifest.architecture.vae_scale, request.steps
        size = (width * scale, height * scale)
        if size not in self._manifest.profiles.sizes:
            raise InvalidRequest(
                "state", f"{size[0]}x{size[1]} is not built", allowed=str(list(self._manifest.profiles.sizes))
            )
        rows = request.token_ids.shape[1]
        if rows not in (1, 2) or (rows == 2) not in self._manifest.profiles.guidance_modes:
            raise InvalidRequest(
                "token_ids", f"{rows} prompts", allowed="2 with guidance, 1 without, as built"
            )
        if False not in self._manifest.profiles.guidance_modes and not all(
            map(request.guided, range(request.begin, request.end))
        ):
            raise InvalidRequest(
                "guidance_window",
                str(list(request.guidance_window)),
                allowed="[0, 1]: built with guidance only",
            )
        chunks = self._manifest.profiles.text_chunks
        if not 1 <= request.token_ids.shape[2] <= chunks:
            raise InvalidRequest(
                "token_ids", f"{request.token_ids.shape[2]} chunks", allowed=f"1 to {chunks}"
            )
        expected = {
            "token_ids": (2, rows, request.token_ids.shape[2], self._manifest.architecture.tokens),
            "token_weights": request.token_ids.shape,
            "time_ids": (rows, self._manifest.architecture.time_ids),
            "input_scale": (steps,),
            "coefficients": (steps, *request.coefficients.shape[1:]),
            "noise": (
                steps if len(request.noise) == steps else 1,
                images,
                self._manifest.architecture.latent_channels,
                height,
                width,
            ),
            "state": (len(request.state), images, self._manifest.architecture.latent_channels, height, width),
        }
        for name, shape in expected.items():
            if getattr(request, name).shape != shape:
                raise InvalidRequest(
                    name, f"shape {list(getattr(request, name).shape)}", allowed=str(list(shape))
                )
        if channels and any(plan.map.shape != (size[1], size[0], 3) for plan in request.controls):
            raise InvalidRequest("control_maps", "wrong size", allowed=f"{size[0]}x{size[1]}")

    # --- text -------------------------------------------------------------------------------------------------------

    def _encode(self, request: Conditioning) -> list[Embeddings]:
        """Embeddings of every prompt row; all that the cache lacks go through the encoders in one batch."""
        rows = request.token_ids.shape[1]
        if request.begin == request.end:
            return []
        encoders = "" if self.loras is None else self.loras.text_digest
        keys = [encoders + _prompt_key(request, row) for row in range(rows)]
        known = {key: found for key in keys if (found := self._cache.get(key)) is not None}
        zeros = {0} if request.zero_negative and request.guidance else set()
        missing = [row for row in range(rows) if keys[row] not in known and row not in zeros]
        if missing:
            for row, made in zip(missing, self._run_text_encoders(request, missing), strict=True):
                known[keys[row]] = made
                self._cache.put(keys[row], made)
        return [_zeros_like(known[keys[-1]]) if row in zeros else known[keys[row]] for row in range(rows)]

    def _run_text_encoders(self, request: Conditioning, rows: list[int]) -> list[Embeddings]:
        chunks, tokens = request.token_ids.shape[2:]
        sizes = {"C": len(rows) * chunks}
        hidden, pooled = [], np.zeros(())
        for encoder, name in enumerate(_TEXT_ENCODERS):
            outputs = self._calls[name](sizes, input_ids=request.token_ids[encoder][rows].reshape(-1, tokens))
            weights = request.token_weights[encoder][rows].reshape(-1, tokens, 1)
            states = outputs["hidden_states"].astype(np.float32) * weights
            hidden.append(states.reshape(len(rows), chunks * tokens, -1))
            pooled = outputs.get("text_embeds", pooled)
        context = np.concatenate(hidden, axis=-1)
        firsts = pooled.astype(np.float32).reshape(len(rows), chunks, -1)[
            :, 0
        ]  # a long prompt is pooled from its first chunk
        return [Embeddings(context[row], firsts[row]) for row in range(len(rows))]

    # --- denoising --------------------------------------------------------------------------------------------------

    def _denoise(self, request: Conditioning, embeddings: list[Embeddings]) -> Floats:
        """State after steps [begin, end), images in passes."""
        if request.begin == request.end:
            return request.state
        parts = []
        for images in image_passes(request.state.shape[1], self._manifest.profiles.batches):
            state = request.state[:, images]
            for piece in guidance_slices(request):
                workspace = self._workspace(piece, images.stop - images.start)
                self._fill(workspace, piece, embeddings[-piece.token_ids.shape[1] :], images)
                self._backend.upload(workspace.unet["state"], state)
                state = self._run_steps(workspace, piece, images)
            parts.append(state)
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _workspace(self, request: Conditioning, images: int) -> Workspace:
        scale = self._manifest.architecture.vae_scale
        height, width = request.state.shape[3] * scale, request.state.shape[4] * scale
        chunks = request.token_ids.shape[2]
        key = (width, height, images, chunks, int(request.guidance))
        if key in self._workspaces:
            self._workspaces.move_to_end(key)
            return self._workspaces[key]
        # A residual set and its bindings are the bulk of a workspace: only the shape in use is kept, with
        # guidance and without.
        self._backend.synchronize()
        for other in [other for other in self._workspaces if other[:-1] != key[:-1]]:
            del self._workspaces[other]
        sizes = axis_sizes(
            self._manifest.architecture,
            width=width,
            height=height,
            images=images,
            guidance=request.guidance,
            chunks=chunks,
        )
        context = allocate_tensors(self._backend, self._engines[context_name("unet")], sizes)
        unet = allocate_tensors(self._backend, self._engines["unet"], sizes, shared=context)
        zeros = {spec.name: unet[spec.name] for spec in _residual_inputs(self._engines["unet"].network)}
        self._workspaces[key] = Workspace(sizes, unet, [zeros])
        return self._workspaces[key]

    def _fill(
        self, workspace: Workspace, request: Conditioning, embeddings: list[Embeddings], images: slice
    ) -> None:
        """Upload what stays the same for every step of a pass, and compute what follows from that alone."""
        count = images.stop - images.start
        upload, unet = self._backend.upload, workspace.unet
        upload(unet["prompt_embeds"], _rows([row.context for row in embeddings], count))
        upload(unet["pooled_embeds"], _rows([row.pooled for row in embeddings], count))
        upload(unet["time_ids"], np.repeat(request.time_ids, count, axis=0))
        upload(unet["guidance_scale"], np.array([request.guidance_scale], np.float32))
        self._bound_context(workspace, "unet", 0, unet).run()
        for place in _active_places(request):
            plan = request.controls[place]
            own = self._control_buffers(workspace, plan.control, place)
            upload(own["control_image"], np.broadcast_to(plan.map, (count, *plan.map.shape)))
            upload(own["conditioning_scale"], np.array([plan.weight], np.float32))
            self._bound_context(workspace, controlnet_name(plan.control), place, unet | own).run()

    def _control_buffers(self, workspace: Workspace, control: str, place: int) -> dict[str, DeviceArray]:
        name = controlnet_name(control)
        if place not in workspace.controls:
            prompt = {"prompt_embeds": workspace.unet["prompt_embeds"]}
            own = allocate_tensors(
                self._backend, self._engines[context_name(name)], workspace.sizes, shared=prompt
            )
            engine = self._engines[name]
            scale = engine.network.tensor("conditioning_scale")
            own["conditioning_scale"] = self._backend.allocate(
                scale.shape(workspace.sizes), scale.numpy_dtype(engine.precision)
            )
            workspace.controls[place] = own
        return workspace.controls[place]

    def _bound_context(
        self, workspace: Workspace, network: str, place: int, arrays: Mapping[str, DeviceArray]
    ) -> Bound:
        key = (context_name(network), place, 0)
        if key not in workspace.bound:
            workspace.bound[key] = _bind(self._engines[key[0]], workspace.sizes, arrays)
        return workspace.bound[key]

    def _run_steps(self, workspace: Workspace, request: Conditioning, images: slice) -> Floats:
        """The loop: small copies on the device and engine passes, nothing that waits for it."""
        backend, unet = self._backend, workspace.unet
        tables = self._upload_tables(workspace, request, images)
        single_noise = len(request.noise) == 1
        if single_noise:
            backend.copy(unet["noise"], tables["noise"][0])
        for step in range(request.begin, request.end):
            row = step - request.begin
            for name in ("timestep", "input_scale", "coefficients"):
                backend.copy(unet[name], tables[name][row])
            if not single_noise:
                backend.copy(unet["noise"], tables["noise"][row])
            residuals = self._run_controlnets(workspace, request, step)
            self._bound_unet(workspace, residuals).run()
            backend.copy(unet["state"], unet["new_state"])
        state: Floats = backend.download(unet["state"])
        return state

    def _upload_tables(
        self, workspace: Workspace, request: Conditioning, images: slice
    ) -> dict[str, DeviceArray]:
        """Per-step values of the slice, one upload each."""
        steps = slice(request.begin, request.end)
        noise = request.noise[:, images] if len(request.noise) == 1 else request.noise[steps, images]
        values = {
            "timestep": request.timesteps[steps, None],
            "input_scale": request.input_scale[steps, None],
            "coefficients": request.coefficients[steps],
            "noise": noise,
        }
        for name, value in values.items():
            if name not in workspace.tables or workspace.tables[name].shape != value.shape:
                workspace.tables[name] = self._backend.allocate(value.shape, "float32")
            self._backend.upload(workspace.tables[name], value)
        return workspace.tables

    def _run_controlnets(self, workspace: Workspace, request: Conditioning, step: int) -> int:
        """Chain the step's ControlNets; the residual set that holds their sum (0, the zeros, without any)."""
        current = 0
        for place in active_controls(request.controls, step, request.steps):
            self._bound_control(workspace, request.controls[place].control, place, current).run()
            current = _next_set(current)
        return current

    def _bound_control(self, workspace: Workspace, control: str, place: int, current: int) -> Bound:
        name = controlnet_name(control)
        key = (name, place, current)
        if key not in workspace.bound:
            engine = self._engines[name]
            target = self._residual_set(workspace, _next_set(current))
            source = workspace.residuals[current]
            outputs = {f"{residual}_out": array for residual, array in target.items()}
            arrays = workspace.unet | self._control_buffers(workspace, control, place) | source | outputs
            workspace.bound[key] = _bind(engine, workspace.sizes, arrays)
        return workspace.bound[key]

    def _bound_unet(self, workspace: Workspace, current: int) -> Bound:
        key = ("unet", 0, current)
        if key not in workspace.bound:
            arrays = workspace.unet | workspace.residuals[current]
            workspace.bound[key] = _bind(self._engines["unet"], workspace.sizes, arrays)
        return workspace.bound[key]

    def _residual_set(self, workspace: Workspace, index: int) -> ResidualSet:
        """Set `index`, made when first needed: without a second control there is no third set."""
        engine = self._engines["unet"]
        while len(workspace.residuals) <= index:
            workspace.residuals.append(
                {
                    spec.name: self._backend.allocate(
                        spec.shape(workspace.sizes), spec.numpy_dtype(engine.precision)
                    )
                    for spec in _residual_inputs(engine.network)
                }
            )
        return workspace.residuals[index]

    # --- pixels -----------------------------------------------------------------------------------------------------

    def _decode(self, latents: Floats) -> NDArray[np.uint8]:
        """[B, H, W, 3] of latents [B, 4, h, w], in passes as the UNet's and in tiles where it is too large to
        decode at once.

        IntaglioError where a value was not finite.
        """
        manifest = self._manifest
        height, width = latents.shape[2:]
        scale = manifest.architecture.vae_scale
        tiling = latent_tiling(manifest.profiles, manifest.architecture, width=width, height=height)
        parts = []
        for images in image_passes(len(latents), manifest.profiles.batches):
            scaled = decoder_input(latents[images], manifest)
            tiles = (
                self._decode_tile(scaled[:, :, top : top + tiling.height, left : left + tiling.width])
                for top, left in tiling.places
            )
            parts.append(
                blend_tiles(
                    tiling.scaled(scale), tiles, shape=(len(scaled), height * scale, width * scale, 3)
                )
            )
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _decode_tile(self, latents: Floats) -> NDArray[np.uint8]:
        scale, (images, _, height, width) = self._manifest.architecture.vae_scale, latents.shape
        sizes = axis_sizes(
            self._manifest.architecture, width=width * scale, height=height * scale, images=images
        )
        outputs = self._calls["vae_decoder"](sizes, latent_sample=latents)
        if not np.isfinite(outputs["magnitude"]).all():  # the bytes would be a black picture, or anything
            raise IntaglioError(
                "the picture has values that are not finite: the networks overflowed on this request; "
                "try smaller weights of LoRAs and controls, or build with a VAE that stays inside float16"
            )
        pixels: NDArray[np.uint8] = outputs["pixels"]
        return pixels


class Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Give the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def decoder_input(latents: Floats, manifest: BuildManifest) -> Floats:
    """[B, 4, h, w] of a trajectory's latents, as diffusers' SDXL pipelines give them to the decoder."""
    scaled: Floats = latents / np.float32(manifest.scaling_factor)
    if manifest.latents_mean is None or manifest.latents_std is None:
        return scaled
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (manifest.latents_mean, manifest.latents_std)
    )
    shifted: Floats = scaled * std + mean
    return shifted


def image_passes(images: int, batches: Sequence[int]) -> list[slice]:
    """Slices of `images` images in passes of the largest of `batches` that fits (`batches` has 1)."""
    passes, start = [], 0
    while start < images:
        count = max(batch for batch in batches if batch <= images - start)
        passes.append(slice(start, start + count))
        start += count
    return passes


def _window(found: Tensors) -> tuple[float, float]:
    # The shortest decimal of a float32: 0.7 is meant, and 7 of 10 steps are inside it.
    begin, end = (float(str(value)) for value in found.get("guidance_window", np.array([0, 1], np.float32)))
    return begin, end


def _inside(window: tuple[float, float], step: int, steps: int) -> bool:
    begin, end = window
    return step / steps >= begin and (step + 1) / steps <= end


def active_controls(plans: Sequence[ControlPlan], step: int, steps: int) -> list[int]:
    """Places of the controls that take part in `step`."""
    return [place for place, plan in enumerate(plans) if plan.active(step, steps)]


def _active_places(request: Conditioning) -> list[int]:
    """Places of the controls that take part in any step of the slice."""
    steps = range(request.begin, request.end)
    return sorted(
        {place for step in steps for place in active_controls(request.controls, step, request.steps)}
    )


def guidance_slices(request: Conditioning) -> list[Conditioning]:
    """`request` cut where guidance goes on or off; what is outside of its window has the positive prompt
    alone.
    """
    if not request.guidance:
        return [request]
    found: list[Conditioning] = []
    for guided, group in itertools.groupby(range(request.begin, request.end), request.guided):
        steps = list(group)
        piece = replace(request, begin=steps[0], end=steps[-1] + 1)
        if not guided:
            positive = {name: getattr(request, name)[:, -1:] for name in ("token_ids", "token_weights")}
            piece = replace(piece, **positive, time_ids=request.time_ids[-1:])
        found.append(piece)
    return found


def _next_set(current: int) -> int:
    return 2 if current == 1 else 1


def _bind(engine: Engine, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> Bound:
    """`engine` with its own of `arrays`."""
    return engine.bind(sizes, {spec.name: arrays[spec.name] for spec in engine.network.tensors})


def _residual_inputs(network: NetworkSpec) -> list[TensorSpec]:
    return [spec for spec in network.inputs if spec.name.startswith(("down_residual_", "mid_residual"))]


def _prompt_key(request: Conditioning, row: int) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(request.token_ids[:, row]).tobytes())
    digest.update(np.ascontiguousarray(request.token_weights[:, row]).tobytes())
    return digest.hexdigest()


def _loras(found: Tensors) -> tuple[ResolvedLora, ...]:
    try:
        return set_from_json(bytes(found["loras"][0]))
    except ValueError as error:
        raise InvalidRequest(
            "loras", "not a resolved set", allowed="what preprocess makes of a request's loras"
        ) from error


def _replaceable(layers: SwapLayers | None, network: str) -> dict[str, Array]:
    """Pristine values of the weights of `network` that LoRAs may change."""
    component = next((one for one, networks in SWAPPED.items() if network in networks), None)
    if layers is None or component is None:
        return {}
    file = layers.pristine[component]
    return {name: file.read(name) for name in file.tensors if network_of_weight(component, name) == network}


def _zeros_like(embeddings: Embeddings) -> Embeddings:
    return Embeddings(np.zeros_like(embeddings.context), np.zeros_like(embeddings.pooled))


def _rows(values: Sequence[Floats], images: int) -> Floats:
    """[N, ...]: each prompt's value once an image, prompts one after another."""
    return np.repeat(np.stack(values), images, axis=0)


def _warm_up_tensors(
    manifest: BuildManifest, *, width: int, height: int, guidance: bool
) -> Mapping[str, Array]:
    rows, a = 2 if guidance else 1, manifest.architecture
    sizes = axis_sizes(a, width=width, height=height, guidance=guidance)
    ids = np.zeros((2, rows, 1, a.tokens), np.int64)
    controls = [
        {"control": control, "weight": 1.0, "begin": 0.0, "end": 1.0} for control in manifest.controlnets
    ]
    inputs = network_spec("unet", a)
    latents = inputs.tensor("noise").shape(sizes)
    return {
        "token_ids": ids,
        "token_weights": np.ones(ids.shape, np.float32),
        "zero_negative": np.array([False]),
        "time_ids": np.zeros((rows, a.time_ids), np.float32),
        "guidance_scale": np.ones(1, np.float32),
        "timesteps": np.ones(1, np.float32),
        "input_scale": np.ones(1, np.float32),
        "coefficients": np.zeros((1, *inputs.tensor("coefficients").shape(sizes)), np.float32),
        "noise": np.zeros((1, *latents), np.float32),
        "state": np.zeros(inputs.tensor("state").shape(sizes), np.float32),
        "controls": string_tensor(json.dumps(controls)),
        "control_maps": np.zeros((len(controls), height, width, 3) if controls else (1, 1, 1, 3), np.uint8),
        "loras": string_tensor("[]"),
    }
