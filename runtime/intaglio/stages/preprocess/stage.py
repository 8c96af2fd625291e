"""Request -> arrays: validation, tokens, solver table, noise, control maps. It runs on the CPU.

Axes as in `intaglio.contract.models`: R prompts [negative; positive], k chunks, n steps, B images, c
controls.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import BuildManifest
from intaglio.builds.published_presets import PublishedPresets
from intaglio.contract.detectors import CANNY
from intaglio.contract.models import DELIVERY
from intaglio.contract.ports import Tensors, string_tensor
from intaglio.detectors.served import ServedDetectors
from intaglio.engines.interface import Array
from intaglio.imaging.images import check_metadata
from intaglio.imaging.openpose import LEAST_BLACK, black_share
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.loras.hashes import ShortHashes
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.request.limits import check_resident
from intaglio.request.read import read_request
from intaglio.request.request import ControlRequest, Request, ResolvedControl, request_metadata
from intaglio.sampling.noise import TorchCpuGenerator
from intaglio.sampling.solvers import SolverTable, initial_state, solver_table
from intaglio.stages.preprocess.control_maps import ControlMaps
from intaglio.stages.preprocess.prompt import align_chunks, encode_prompt
from intaglio.stages.preprocess.tokenizer import PromptTokenizer

__all__ = ["Preprocess"]

POSE_TYPE: Final = "pose"
"""The type of ControlNets whose maps show OpenPose's limbs on black."""


class Preprocess:
    """The stage; entering it reads the tokenizers and checks every file that requests will read."""

    def __init__(self, manifest: BuildManifest, folder: Path) -> None:
        self._manifest = manifest
        self._folder = folder
        self._loras = None if manifest.swap == "off" else LoraStore(folder / LORAS_FOLDER)
        self._presets = PublishedPresets(folder)
        self._hashes = None if self._loras is None else ShortHashes(self._loras)
        self._tokenizers: tuple[PromptTokenizer, ...] = ()
        built = None if manifest.poses is None else folder / manifest.poses
        added = None if manifest.poses_source is None else Path(manifest.poses_source)
        self._detectors = ServedDetectors(manifest, folder)
        poses = PoseLibrary(built, added)
        self._maps = ControlMaps(poses, self._detectors, most_pixels=manifest.limits.input_pixels)

    def __enter__(self) -> Self:
        """Open everything.

        Raises:
            EngineMismatch: files are missing or changed.
            ConfigError: a tokenizer, the registry of LoRAs or the file of presets is damaged.
        """
        check_files(self._folder, self._manifest.files, command=self._manifest.rebuild)
        if self._loras is not None:
            self._loras.current()
        self._presets.current()
        self._tokenizers = tuple(
            PromptTokenizer.from_folder(self._folder / name) for name in self._manifest.tokenizers
        )
        self._detectors.__enter__()
        self._maps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.__exit__(kind, error, trace)
        self._detectors.__exit__(kind, error, trace)
        self._tokenizers = ()

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Every output of `models.PREPROCESS`.

        Raises:
            InvalidRequest: see `read_request`, `check_resident`, `check_metadata`, `decode_image`,
                `encode_prompt`.
            ConfigError, DetectorFailed: see `ServedDetectors`.
        """
        started = time.perf_counter()
        served = None if self._loras is None else self._loras.current()
        request = read_request(tensors, self._manifest, served, self._presets.current())
        controls = [self._control_id(control.type) for control in request.controls]
        used = [control for control, asked in zip(controls, request.controls, strict=True) if asked.weight]
        check_resident(used, self._manifest)
        metadata = self._metadata(request)
        table = solver_table(request.trajectory, scheduler_config=self._manifest.scheduler)
        # The prompt comes first because it may refuse the request: then no thread has begun.
        outputs = self._prompt_tensors(request)
        palettes = [self._manifest.palettes.get(control) for control in controls]
        with self._maps.started(request, palettes) as jobs:
            outputs |= self._noise_tensors(request, table)
            outputs["control_maps"] = self._maps.finished(jobs)
        metadata["warnings"] = self._warnings(request, outputs["control_maps"])
        self._check_metadata(metadata, request)
        outputs |= {
            "controls": string_tensor(json.dumps(self._resolved_controls(request))),
            "clip_skip": np.array([request.clip_skip], np.int32),
            "guidance_scale": np.array([request.guidance_scale], np.float32),
            "guidance_rescale": np.array([request.guidance_rescale], np.float32),
            "guidance_window": np.array([request.guidance_begin, request.guidance_end], np.float32),
            "timesteps": table.timesteps,
            "input_scale": table.input_scale,
            "coefficients": table.coefficients,
            "output_format": string_tensor(request.output_format),
            "priority": string_tensor(request.priority),
            "queue_timeout": np.array([request.queue_timeout or 0.0], np.float32),
            "loras": string_tensor(json.dumps([lora.model_dump() for lora in request.loras])),
            "metadata": string_tensor(json.dumps(metadata)),
        }
        outputs["timings"] = string_tensor(json.dumps({"preprocess": time.perf_counter() - started}))
        return outputs

    def _metadata(self, request: Request) -> dict[str, Any]:
        hashes = self._manifest.lora_hashes if self._hashes is None else self._hashes.of(request.loras)
        return request_metadata(request, self._manifest, lora_hashes=hashes)

    def _check_metadata(self, metadata: dict[str, Any], request: Request) -> None:
        """Check what `postprocess` will write into the last image, before any is drawn."""
        written = {name: value for name, value in metadata.items() if name not in DELIVERY}
        written["image_index"] = request.num_images - 1
        source_type = self._manifest.provenance.source_type
        check_metadata(written, request.output_format, source_type=source_type)

    def _warnings(self, request: Request, maps: Array) -> list[str]:
        """What the request probably does not mean, a sentence each; `maps` is [c, H, W, RGB]."""
        found = list(request.warnings)
        if self._presets.problem is not None:
            found.append(self._presets.problem)
        for index, control in enumerate(request.controls):
            warning = self._doubt(control, maps[index])
            if warning is not None:
                found.append(f"controls[{index}].{warning}")
        return found

    def _doubt(self, control: ControlRequest, shown: Array) -> str | None:
        """What is probably not meant with the map of one control; `shown` is [H, W, RGB]."""
        if control.image is None:
            return None
        kind = self._manifest.controlnets[self._control_id(control.type)]
        made = {CANNY: CANNY, **self._detectors.types}.get(control.preprocess)
        if made is not None and made != kind:
            return f"preprocess: detector {control.preprocess} makes maps of type {made}, not {kind}"
        if kind != POSE_TYPE or made is not None:
            return None
        share = black_share(shown)
        if share >= LEAST_BLACK:
            return None
        return (
            f"image: {share:.0%} of it is black, but a pose map is mostly black; send an OpenPose map, "
            "name a pose, or let a detector read the photograph (preprocess auto)"
        )

    def _prompt_tensors(self, request: Request) -> dict[str, Array]:
        texts = [("prompt", request.full_prompt)]
        if request.guidance:
            texts.insert(0, ("negative_prompt", request.full_negative_prompt))
        most = self._manifest.profiles.text_chunks
        encoded = []
        for tokenizer in self._tokenizers:
            for field, text in texts:
                chunks = encode_prompt(text, tokenizer, max_chunks=most, field=field)
                encoded.append((chunks, tokenizer))
        aligned = align_chunks(encoded)
        shape = (len(self._tokenizers), len(texts), *aligned[0].ids.shape)
        zero_negative = request.negative_prompt is None and self._manifest.force_zeros_for_empty_prompt
        # Original size, no crop, target size (SDXL, arXiv 2307.01952, section 2.2).
        size = (request.height, request.width)
        time_ids = [*size, 0, 0, *size]
        return {
            "token_ids": np.stack([chunks.ids for chunks in aligned]).reshape(shape),
            "token_weights": np.stack([chunks.weights for chunks in aligned]).reshape(shape),
            "zero_negative": np.array([zero_negative]),
            "time_ids": np.array([time_ids] * len(texts), np.float32),
        }

    def _noise_tensors(self, request: Request, table: SolverTable) -> dict[str, Array]:
        """Draws in diffusers' order: the latents of all images together, then one draw a step."""
        generator = TorchCpuGenerator(request.seed)
        architecture = self._manifest.architecture
        height = request.height // architecture.vae_scale
        width = request.width // architecture.vae_scale
        shape = (request.num_images, architecture.latent_channels, height, width)
        latents = generator.randn(shape) * np.float32(table.init_scale)
        if table.needs_noise:
            draws = [generator.randn(shape) for _ in range(len(table))]
        else:
            draws = [np.zeros(shape, np.float32)]
        return {"state": initial_state(latents), "noise": np.stack(draws)}

    def _resolved_controls(self, request: Request) -> list[dict[str, Any]]:
        """What diffuse needs to know of each control beside its map."""
        found = []
        for control in request.controls:
            resolved = ResolvedControl(
                control=self._control_id(control.type),
                weight=control.weight,
                begin=control.begin,
                end=control.end,
                every=control.every or request.control_every,
            )
            found.append(resolved.model_dump())
        return found

    def _control_id(self, name: str) -> str:
        """`name` itself if a ControlNet has that id, else the first ControlNet of that type."""
        controls = self._manifest.controlnets
        if name in controls:
            return name
        return next(control for control, kind in controls.items() if kind == name)
