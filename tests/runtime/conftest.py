"""A random-weight SDXL pipeline at a few thousand parameters, its build manifest, and a backend that runs its modules in torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from intaglio.config import Defaults, Execution, Limits, Profiles
from intaglio.engine import Array, DeviceArray, check_bindings
from intaglio.manifest import BuildManifest, NetworkFile, file_digest
from intaglio.models import SDXL, numpy_type
from intaglio.onnxruntime_engine import OnnxRuntimeBackend
from intaglio.tensors import AxisSizes, NetworkSpec, Precision, architecture_from_configs, network_kind

from ..parity import SDXL_SCHEDULER
from ..tiny import CONTROLS, make_modules

REPOSITORY = Path(__file__).parents[2]
SIZES = ((64, 96), (72, 64))  # 72: latents 9, 5, 3, so every halving rounds


@dataclass
class Tiny:
    """Everything a test of the stages needs."""

    modules: dict[str, Any]
    manifest: BuildManifest
    folder: Path

    @property
    def backend(self) -> TorchBackend:
        return TorchBackend(self.modules)

    def pipeline(self, scheduler: Any, *, controls: tuple[str, ...] = ()) -> Any:
        """diffusers' own pipeline over the same modules."""
        parts = {name: self.modules[name] for name in ("vae", "text_encoder", "text_encoder_2", "unet", "tokenizer", "tokenizer_2")}
        extra: dict[str, Any] = {"scheduler": scheduler, "force_zeros_for_empty_prompt": True, "add_watermarker": False}
        if not controls:
            pipeline = diffusers.StableDiffusionXLPipeline(**parts, **extra)
        else:
            nets = [self.modules[f"controlnet.{control}"] for control in controls]
            pipeline = diffusers.StableDiffusionXLControlNetPipeline(**parts, controlnet=nets, **extra)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class TorchBackend(OnnxRuntimeBackend):
    """Host arrays as ONNX Runtime's backend has them; engines are torch modules."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        super().__init__(threads=1)
        self.modules = modules
        self.runs: list[str] = []

    def load(self, network: NetworkSpec, path: Path, *, precision: Precision, replaceable: Mapping[str, Array] | None = None) -> Any:
        return TorchEngine(network, self)


@dataclass
class TorchEngine:
    network: NetworkSpec
    backend: TorchBackend
    precision: Precision = "fp32"

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> Any:
        check_bindings(self, sizes, arrays)
        return TorchBound(self, arrays)

    def close(self) -> None:
        pass


@dataclass
class TorchBound:
    engine: TorchEngine
    arrays: Mapping[str, Any]

    @torch.no_grad()
    def run(self) -> None:
        network, modules = self.engine.network, self.engine.backend.modules
        self.engine.backend.runs.append(network.name)
        inputs = {spec.name: torch.from_numpy(self.arrays[spec.name].values) for spec in network.inputs}
        outputs = RUN[network_kind(network.name)](modules.get(network.name, modules["vae"]), inputs)
        for spec in network.outputs:
            self.arrays[spec.name].values[...] = outputs[spec.name].numpy()


def _run_text_encoder(module: Any, x: Mapping[str, Any]) -> dict[str, Any]:
    out = module(x["input_ids"], output_hidden_states=True)
    return {"hidden_states": out.hidden_states[-2]} | ({"text_embeds": out.text_embeds} if "text_embeds" in out else {})


def _model_input(x: Mapping[str, Any]) -> Any:
    latents = x["state"][0] * x["input_scale"]
    return latents.repeat(len(x["prompt_embeds"]) // len(latents), 1, 1, 1)


def _conditions(x: Mapping[str, Any]) -> dict[str, Any]:
    return {"text_embeds": x["pooled_embeds"], "time_ids": x["time_ids"]}


def _residuals(x: Mapping[str, Any]) -> tuple[list[Any], Any]:
    down = sorted((name for name in x if name.startswith("down_residual_")), key=lambda name: int(name.rsplit("_", 1)[1]))
    return [x[name] for name in down], x["mid_residual"]


def _run_unet(module: Any, x: Mapping[str, Any]) -> dict[str, Any]:
    down, mid = _residuals(x)
    eps = module(
        _model_input(x), x["timestep"][0], x["prompt_embeds"], added_cond_kwargs=_conditions(x), down_block_additional_residuals=down,
        mid_block_additional_residual=mid, return_dict=False,
    )[0]  # fmt: skip
    count = x["state"].shape[1]
    negative, positive = eps[:count], eps[-count:]
    eps = negative + x["guidance_scale"] * (positive - negative)
    stacked = torch.cat([x["state"], eps[None], x["noise"][None]])
    return {"new_state": torch.tensordot(x["coefficients"], stacked, dims=1)}


def _run_controlnet(module: Any, x: Mapping[str, Any]) -> dict[str, Any]:
    down_in, mid_in = _residuals(x)
    image = (x["control_image"].float().permute(0, 3, 1, 2) / 255).repeat(len(x["prompt_embeds"]) // len(x["control_image"]), 1, 1, 1)
    down, mid = module(
        _model_input(x), x["timestep"][0], x["prompt_embeds"], image, conditioning_scale=x["conditioning_scale"],
        added_cond_kwargs=_conditions(x), return_dict=False,
    )  # fmt: skip
    outputs = {f"down_residual_{index}_out": a + b for index, (a, b) in enumerate(zip(down, down_in, strict=True))}
    return outputs | {"mid_residual_out": mid + mid_in}


def _run_vae_decoder(module: Any, x: Mapping[str, Any]) -> dict[str, Any]:
    sample = module.decode(x["latent_sample"], return_dict=False)[0]
    pixels = VaeImageProcessor().postprocess(sample.nan_to_num(), output_type="np")
    return {"pixels": torch.from_numpy((pixels * 255).round().astype("uint8")), "magnitude": sample.abs().mean((1, 2, 3))}


RUN: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "text_encoder": _run_text_encoder,
    "text_encoder_2": _run_text_encoder,
    "unet": _run_unet,
    "controlnet": _run_controlnet,
    "vae_decoder": _run_vae_decoder,
}


def _make_manifest(modules: Mapping[str, Any], folder: Path) -> BuildManifest:
    digest = "0" * 64
    names = ["text_encoder", "text_encoder_2", "unet", "vae_decoder", *(f"controlnet.{control}" for control in CONTROLS)]
    networks = {}
    for name in names:
        (folder / f"{name}.onnx").write_text(name)
        networks[name] = NetworkFile(path=f"{name}.onnx", key=digest, files={f"{name}.onnx": file_digest(folder / f"{name}.onnx")})
    files = [path for part in ("tokenizer", "tokenizer_2", "poses") for path in sorted((folder / part).glob("*.*"))]
    return BuildManifest(
        key=digest,
        config_digest=digest,
        rebuild="intaglio build configs/tiny.yaml",
        base="tiny",
        architecture=architecture_from_configs(
            modules["unet"].config,
            text_encoder=modules["text_encoder"].config.to_dict(),
            text_encoder_2=modules["text_encoder_2"].config.to_dict(),
            vae=modules["vae"].config,
        ),
        scheduler=SDXL_SCHEDULER,
        scaling_factor=0.13025,
        force_zeros_for_empty_prompt=True,
        precision="fp32",
        runtime="onnxruntime",
        target="cpu",
        versions={},
        profiles=Profiles(sizes=SIZES, batch=2, text_chunks=2),
        limits=Limits(steps=50, cost=64 * 96 * 50 * 4, prompt_bytes=2000, input_images=3, input_pixels=512 * 512, controls=2),
        defaults=Defaults(steps=3, guidance_scale=5.0),
        execution=Execution(threads=1, embedding_cache=4),
        networks=networks,
        controlnets=CONTROLS,
        loras=(),
        tokenizers=("tokenizer", "tokenizer_2"),
        poses="poses",
        files={path.relative_to(folder).as_posix(): file_digest(path) for path in files},
    )


POSE = {
    "canvas_width": 256,
    "canvas_height": 256,
    "people": [{"pose_keypoints_2d": [value for index in range(18) for value in (60 + 8 * index, 40 + 10 * index, 1.0)]}],
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny pipeline as built; tests may read `folder`, not change it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(REPOSITORY / "miniature/model" / part, folder / part)
    (folder / "poses").mkdir()
    (folder / "poses" / "waving-01.json").write_text(json.dumps(POSE))
    modules = make_modules()
    return Tiny(modules, _make_manifest(modules, folder), folder)


@pytest.fixture(scope="session")
def request_tensors() -> Callable[..., dict[str, Array]]:
    """Keyword arguments -> the tensors a client would send."""
    return _request_tensors


def _request_tensors(**values: Any) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for name, value in values.items():
        port = SDXL.input(name)
        items = value if port.dims == (-1,) else [value]
        tensors[name] = np.empty(len(items), numpy_type(port.datatype))
        tensors[name][:] = [item.encode() if isinstance(item, str) else item for item in items]
    return tensors
