"""`intaglio doctor --card`: the measured speed of this machine's card, and what an image takes on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from intaglio.contract.config import Deployment
from intaglio.engines.card import gpu_capability
from intaglio.engines.tensorrt.backend import TensorRTBackend
from intaglio.errors import ConfigError, IntaglioError
from intaglio.serving.findings import Finding
from intaglio_export.card.measure import CardSpeed, measure_card
from intaglio_export.card.projection import Drawing, image_seconds
from intaglio_export.card.work import image_work
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.engines.tensorrt import TensorRTBuilder
from intaglio_export.weights.hub import AbsentError, NotFetchedError
from intaglio_export.weights.seeded import ARCHITECTURES
from intaglio_export.weights.sources import find_base, find_model

__all__ = ["architecture_configs", "card_findings", "drawing_of", "speed_findings"]

_Found = TypeVar("_Found")
_SDXL: Final = "sdxl-base-1.0"
_TERA: Final = 1e12
_GIGA: Final = 1e9


def card_findings(deployment: Deployment, path: Path) -> Iterator[Finding]:
    """Measure the card, and project the time of an image of `deployment`, which was read from `path`."""
    del path  # every check of the doctor gets it
    if gpu_capability(deployment.execution.gpu) is None:
        yield Finding("card", "missing", "no NVIDIA card here, so nothing can be measured")
        return
    drawing = drawing_of(deployment)
    try:
        configs = architecture_configs(deployment)
        speed = _measured(deployment)
    except IntaglioError as error:
        yield Finding("card", "missing", f"cannot be measured: {error}")
        return
    yield from speed_findings(speed)
    work = image_work(configs, width=drawing.width, height=drawing.height, guidance=drawing.guidance)
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
    """Configurations of the networks that a build would take; SDXL's for those that are not on this machine.

    Raises:
        IntaglioError: a source is there, and no build can take it.
    """
    configs = dict(ARCHITECTURES[_SDXL])
    replaced = () if deployment.vae is None else ("vae",)
    base = _if_here(lambda: find_base(deployment.base, replaced=replaced, fetch=False))
    if base is not None:
        own = [name for name in ("unet", "vae", "text_encoder_2") if name not in replaced]
        configs |= {name: base.weights(name).config for name in own}
    # A union's passes take as long as those of a ControlNet of one type.
    of_one_type = (source for source in deployment.controlnets.values() if not source.union)
    models = {"vae": deployment.vae, "controlnet": next(of_one_type, None)}
    for name, source in models.items():
        if source is not None:
            find = functools.partial(find_model, source, component=name, unet=configs["unet"], fetch=False)
            model = _if_here(find)
            configs[name] = configs[name] if model is None else model.config
    return configs


def _if_here(find: Callable[[], _Found]) -> _Found | None:
    """What `find` finds; None where it must be downloaded first, or cannot be had."""
    try:
        return find()
    except NotFetchedError:
        return None
    except ConfigError as error:
        if isinstance(error.__cause__, AbsentError):
            return None
        raise
