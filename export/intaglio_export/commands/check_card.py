"""`intaglio doctor --card`: the measured speed of this machine's card, and what an image takes on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.contract.config import Deployment
from intaglio.engines.card import gpu_capability
from intaglio.engines.tensorrt.backend import TensorRTBackend
from intaglio.errors import IntaglioError
from intaglio.serving.findings import Finding
from intaglio_export.card.measure import CardSpeed, measure_card
from intaglio_export.card.projection import Drawing, image_seconds
from intaglio_export.card.work import image_work
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.engines.tensorrt import TensorRTBuilder
from intaglio_export.weights.seeded import ARCHITECTURES

__all__ = ["architecture_configs", "card_findings", "drawing_of", "speed_findings"]

_SDXL: Final = "sdxl-base-1.0"
_TERA: Final = 1e12
_GIGA: Final = 1e9


def card_findings(deployment: Deployment, path: Path) -> Iterator[Finding]:
    """Measure the card, and project the time of an image of `deployment`, which was read from `path`."""
    del path  # every check of the doctor gets it
    if gpu_capability(deployment.execution.gpu) is None:
        yield Finding("card", "missing", "no NVIDIA card here, so nothing can be measured")
        return
    try:
        speed = _measured(deployment)
    except IntaglioError as error:
        yield Finding("card", "missing", f"cannot be measured: {error}")
        return
    yield from speed_findings(speed)
    drawing = drawing_of(deployment)
    work = image_work(
        architecture_configs(deployment),
        width=drawing.width,
        height=drawing.height,
        guidance=drawing.guidance,
    )
    seconds = image_seconds(drawing, work, speed)
    detail = f"{seconds:.2f} s (a projection from these figures) for {drawing}"
    yield Finding("one image", "note", detail)


def _measured(deployment: Deployment) -> CardSpeed:
    """Raises an IntaglioError where the library is missing or the card fails."""
    platform = resolve_platform(deployment.model_copy(update={"target": "auto"}))
    if platform.runtime == "onnxruntime":
        raise IntaglioError(
            "the deployment runs on ONNX Runtime; write runtime: auto, and pip install 'intaglio[tensorrt]'"
        )
    backend = TensorRTBackend(
        platform.runtime, gpu=deployment.execution.gpu, cuda_graph=True, rebuild="intaglio doctor --card"
    )
    try:
        return measure_card(TensorRTBuilder(platform, platform.runtime), backend)
    finally:
        backend.close()


def speed_findings(speed: CardSpeed) -> Iterator[Finding]:
    """The figures, one a line."""
    for kind, operations in speed.operations.items():
        yield Finding(f"{kind}, fp16", "ok", f"{operations / _TERA:.1f} TFLOP/s")
    if speed.fp8 is None:
        yield Finding("product, fp8", "note", "not on this card with this library")
    else:
        yield Finding("product, fp8", "ok", f"{speed.fp8 / _TERA:.1f} TFLOP/s")
    note = f"products in fp16 add in {speed.sums} (relative error {speed.error:.1e} over 5120 terms)"
    if speed.sums == "float32":
        note += ": GeForce cards multiply half as fast that way"
    yield Finding("sums", "ok", note)
    yield Finding("copies", "ok", f"{speed.bandwidth / _GIGA:.0f} GB/s read and written within the card")
    yield Finding("copies from host", "ok", f"{speed.from_host / _GIGA:.1f} GB/s from pinned memory")
    yield Finding("measured", "ok", f"in {speed.seconds:.1f} s")


def drawing_of(deployment: Deployment) -> Drawing:
    """The deployment's largest image with its own defaults, and one ControlNet where it has any."""
    width, height = max(deployment.profiles.sizes, key=lambda size: size[0] * size[1])
    defaults = deployment.defaults
    guidance = defaults.guidance_scale > 1 and True in deployment.profiles.guidance_modes
    return Drawing(width, height, defaults.steps, guidance, controls=min(len(deployment.controlnets), 1))


def architecture_configs(deployment: Deployment) -> Mapping[str, Mapping[str, Any]]:
    """Configurations of the networks: the base's own where it is a folder here, otherwise SDXL's."""
    base = next(
        (source for source in deployment.base if source.folder is None or source.folder.is_dir()), None
    )
    if base is None or base.folder is None:
        return ARCHITECTURES[(base and base.architecture) or _SDXL]
    configs: dict[str, Mapping[str, Any]] = {}
    for name in ("unet", "vae", "text_encoder_2"):
        configs[name] = _read(base.folder / name)
    folders = (control.folder for control in deployment.controlnets.values())
    controlnet = next((folder for folder in folders if folder is not None and folder.is_dir()), None)
    # Without a ControlNet none is drawn, and any will do.
    configs["controlnet"] = ARCHITECTURES[_SDXL]["controlnet"] if controlnet is None else _read(controlnet)
    return configs


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found
