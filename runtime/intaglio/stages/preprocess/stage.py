"""Request -> arrays: validation, tokens, solver table, noise, control maps. CPU only, no state between
requests.

Axes as in `intaglio.contract.models`: R prompts [negative; positive], k chunks, n steps, B images, c
controls.
"""

# ruff: noqa: PLC0415  (OpenCV is an extra)

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.ports import Tensors, string_tensor
from intaglio.engines.interface import Array
from intaglio.errors import MissingExtra
from intaglio.imaging.images import decode_image
from intaglio.imaging.openpose import draw_pose, load_pose
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.recently_used import RecentlyUsed
from intaglio.request.read import read_request
from intaglio.request.request import ControlRequest, Request, request_metadata
from intaglio.sampling.noise import TorchCpuGenerator
from intaglio.sampling.solvers import SolverTable, initial_state, solver_table
from intaglio.stages.preprocess.prompt import PromptTokenizer, align_chunks, encode_prompt

__all__ = ["Preprocess"]

CANNY_THRESHOLDS: Final = (100, 200)
"""controlnet_aux 0.0.10 `CannyDetector`'s defaults."""
KEPT_MAPS: Final = 8
"""Control maps kept for who sends the same picture again: 24 MB of them at 1024x1024, for 25 ms of decoding a
PNG.
"""

Map = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MapJob:
    """A control map that a thread makes, or has made."""

    key: Hashable
    """All that the map depends on."""
    made: Future[Map]


class Preprocess:
    """The stage; entering it reads the tokenizers and checks every file it will read."""

    def __init__(self, manifest: BuildManifest, folder: Path) -> None:
        self._manifest = manifest
        self._folder = folder
        self._poses = None if manifest.poses is None else folder / manifest.poses
        self._loras = None if manifest.swap == "off" else LoraStore(folder / LORAS_FOLDER)
        self._tokenizers: tuple[PromptTokenizer, ...] = ()
        self._maps: RecentlyUsed[Future[Map]] = RecentlyUsed(KEPT_MAPS)

    def __enter__(self) -> Self:
        """Raises EngineMismatch on missing or changed files, ConfigError on a tokenizer or a registry of
        LoRAs that is none.
        """
        check_files(self._folder, self._manifest.files, command=self._manifest.rebuild)
        if self._loras is not None:
            self._loras.current()
        self._tokenizers = tuple(
            PromptTokenizer.from_folder(self._folder / name) for name in self._manifest.tokenizers
        )
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="map")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._tokenizers = ()

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Every output of `models.PREPROCESS`.

        Raises:
            InvalidRequest: see `read_request`, `decode_image`, `encode_prompt`.
        """
        started = time.perf_counter()
        request = read_request(
            tensors, self._manifest, None if self._loras is None else self._loras.current()
        )
        table = solver_table(request.scheduler, request.steps, scheduler_config=self._manifest.scheduler)
        prompt = self._prompt_tensors(request)  # may refuse the request: first, so that no thread has begun
        with self._started_maps(request) as maps:
            drawn = self._noise_tensors(request, table) | self._control_tensors(request, maps)
        outputs = {
            **prompt,
            **drawn,
            "guidance_scale": np.array([request.guidance_scale], np.float32),
            "guidance_window": np.array([request.guidance_begin, request.guidance_end], np.float32),
            "timesteps": table.timesteps,
            "input_scale": table.input_scale,
            "coefficients": table.coefficients,
            "output_format": string_tensor(request.output_format),
            "loras": string_tensor(json.dumps([lora.model_dump() for lora in request.loras])),
            "metadata": string_tensor(json.dumps(request_metadata(request, self._manifest))),
        }
        outputs["timings"] = string_tensor(json.dumps({"preprocess": time.perf_counter() - started}))
        return outputs

    def _prompt_tensors(self, request: Request) -> dict[str, Array]:
        texts = [("prompt", request.full_prompt)]
        if request.guidance:
            texts.insert(0, ("negative_prompt", request.negative_prompt or ""))
        most = self._manifest.profiles.text_chunks
        encoded = [
            (encode_prompt(text, tokenizer, max_chunks=most, field=field), tokenizer)
            for tokenizer in self._tokenizers
            for field, text in texts
        ]
        aligned = align_chunks(encoded)
        shape = (len(self._tokenizers), len(texts), *aligned[0].ids.shape)
        size = (
            request.height,
            request.width,
        )  # original size, crop of none, target size (SDXL, arXiv 2307.01952 section 2.2)
        return {
            "token_ids": np.stack([chunks.ids for chunks in aligned]).reshape(shape),
            "token_weights": np.stack([chunks.weights for chunks in aligned]).reshape(shape),
            "zero_negative": np.array(
                [request.negative_prompt is None and self._manifest.force_zeros_for_empty_prompt]
            ),
            "time_ids": np.array([[*size, 0, 0, *size]] * len(texts), np.float32),
        }

    def _noise_tensors(self, request: Request, table: SolverTable) -> dict[str, Array]:
        """Draws in diffusers' order: all images' latents at once, then one draw a step."""
        generator = TorchCpuGenerator(request.seed)
        architecture = self._manifest.architecture
        scale = architecture.vae_scale
        shape = (
            request.num_images,
            architecture.latent_channels,
            request.height // scale,
            request.width // scale,
        )
        latents = generator.randn(shape) * np.float32(table.init_scale)
        draws = (
            [generator.randn(shape) for _ in range(len(table))]
            if table.needs_noise
            else [np.zeros(shape, np.float32)]
        )
        return {"state": initial_state(latents), "noise": np.stack(draws)}

    def _control_tensors(self, request: Request, jobs: list[MapJob]) -> dict[str, Array]:
        maps = [job.made.result() for job in jobs]
        for job in jobs:
            self._maps.put(job.key, job.made)
        plan = [
            {
                "control": self._control_id(control.type),
                "weight": control.weight,
                "begin": control.begin,
                "end": control.end,
            }
            for control in request.controls
        ]
        return {
            "controls": string_tensor(json.dumps(plan)),
            "control_maps": _stacked(maps) if maps else np.zeros((1, 1, 1, 3), np.uint8),
        }

    def _control_id(self, name: str) -> str:
        """`name` itself if a ControlNet has that id, else the first one of that type."""
        controls = self._manifest.controlnets
        return (
            name if name in controls else next(control for control, kind in controls.items() if kind == name)
        )

    @contextlib.contextmanager
    def _started_maps(self, request: Request) -> Iterator[list[MapJob]]:
        """Every control's map on its way: while Pillow decodes, the noise is drawn. Nothing is left over for
        the next request.
        """
        jobs: list[MapJob] = []
        try:
            jobs += (self._start_map(request, index) for index in range(len(request.controls)))
            yield jobs
        finally:
            for job in jobs:
                job.made.cancel()
            wait([job.made for job in jobs])

    def _start_map(self, request: Request, index: int) -> MapJob:
        """In a thread, but for one that was made lately."""
        control = request.controls[index]
        source = control.pose if control.image is None else request.image_digests[control.image]
        key = (control.pose is None, source, control.preprocess, request.width, request.height)
        return MapJob(
            key, self._maps.get(key) or self._threads.submit(self._control_map, request, index, control)
        )

    def _control_map(self, request: Request, index: int, control: ControlRequest) -> Map:
        """[H, W, RGB]; images are resized as diffusers does (Lanczos, aspect not kept)."""
        if control.pose is not None:
            keypoints = load_pose(self._poses, control.pose, field=f"controls[{index}].pose")
            return draw_pose(keypoints, width=request.width, height=request.height)
        source = control.image or 0
        image = decode_image(
            request.images[source], field=f"images[{source}]", most_pixels=self._manifest.limits.input_pixels
        )
        if image.size != (request.width, request.height):
            image = image.resize((request.width, request.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.uint8)
        return canny_map(pixels) if control.preprocess == "canny" else pixels


def _stacked(maps: list[Map]) -> Map:
    """[c, H, W, RGB]; of one map no copy is taken. Nobody may write to it: the map may be kept."""
    found = maps[0][None] if len(maps) == 1 else np.stack(maps)
    found.flags.writeable = False
    return found


def canny_map(pixels: Map) -> Map:
    """White Canny edges of [H, W, RGB] `pixels` on black, same shape."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="serve") from error
    edges = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), *CANNY_THRESHOLDS)
    return np.repeat(np.asarray(edges, dtype=np.uint8)[..., None], 3, axis=-1)
