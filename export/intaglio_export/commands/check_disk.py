"""Whether the disks hold what a build downloads and writes, for `intaglio doctor`."""

# ruff: noqa: PLC0415  (slow to import; only downloads need it)

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from intaglio.builds.manifest import MANIFEST_NAME
from intaglio.contract.architecture import PARAMETERS
from intaglio.contract.tensors import compute_dtype
from intaglio.loras.targets import SWAPPED
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.serving.findings import Finding
from intaglio_export.commands.source_report import SourceReport, size_text
from intaglio_export.weights.checkpoint_files import PREFIXES
from intaglio_export.weights.repository_files import COMPONENTS
from intaglio_export.weights.sources import Weights

__all__ = ["disk_findings", "written_bytes"]

_COPIES: Final = 2
"""What a build writes of every weight: the graph and the engine. A build's folder has links to both."""


@dataclass(frozen=True, slots=True)
class _Need:
    what: str
    detail: str
    place: Path
    bytes: int
    fix: str
    is_certain: bool
    """Whether a build cannot do with less."""


def disk_findings(report: SourceReport) -> Iterator[Finding]:
    """Room for the downloads in the hub's cache, and for the build; where both are on one disk, for both."""
    needs = [*_downloads(report), *_build(report)]
    for need in needs:
        device = need.place.stat().st_dev
        together = sum(one.bytes for one in needs if one.place.stat().st_dev == device)
        free = shutil.disk_usage(need.place).free
        detail = f"{need.detail}, {size_text(free)} free"
        if together <= free:
            yield Finding(need.what, "ok", detail)
            continue
        if together > need.bytes:
            detail = f"{detail}, and {size_text(together)} are needed there in all"
        yield Finding(need.what, "missing" if need.is_certain else "note", detail, need.fix)


def _downloads(report: SourceReport) -> Iterator[_Need]:
    if not report.to_fetch:
        return
    from huggingface_hub import constants

    size = sum(report.to_fetch.values())
    detail = f"{size_text(size)} to download to {constants.HF_HUB_CACHE}"
    place = _existing(Path(constants.HF_HUB_CACHE))
    yield _Need(
        "downloads", detail, place, size, "free that much there, or set HF_HOME to another disk", True
    )


def _build(report: SourceReport) -> Iterator[_Need]:
    deployment = report.deployment
    size = written_bytes(report)
    if size is None:
        return
    folder = deployment.build
    is_built = (deployment.build_folder / MANIFEST_NAME).is_file()
    detail = f"a build from nothing writes about {size_text(size)} to {folder} (estimate: weights x stages)"
    fix = "free that much there, or set `build` to a folder on another disk"
    yield _Need("build disk", detail, _existing(folder), size, fix, not is_built)


def written_bytes(report: SourceReport) -> int | None:
    """Estimate of what a build from nothing writes: the values of the weights in the deployment's precision,
    times the stages that write them. A source that is to be downloaded counts with its size there.

    None where the platform, a source that is no download, or the configurations of a single file are not
    known.
    """
    deployment = report.deployment
    base = report.base
    if report.platform is None or (base is None and "base" not in report.to_fetch):
        return None
    if report.lacks_configurations:
        return None
    precision = deployment.precision_on(report.platform.runtime)
    item = np.dtype(compute_dtype(precision)).itemsize
    found = dict(report.networks)
    if base is not None:
        found = {name: base.weights(name) for name in COMPONENTS} | found
    sizes = {name: _parameters(name, weights) * item for name, weights in found.items()}
    fetched = [size for what, size in report.to_fetch.items() if not what.startswith("lora ")]
    total = _COPIES * (sum(sizes.values()) + sum(fetched))
    if deployment.swaps or deployment.fuse:
        # Once more: as fused weights, or as the pristine ones that LoRAs are applied to.
        total += sum(sizes.get(component, 0) for component in SWAPPED)
        if base is None:
            total += report.to_fetch["base"]
    return total


def _parameters(component: str, weights: Weights) -> int:
    """Values of a component; 0 where they cannot be counted."""
    kind = component.partition(".")[0]
    if weights.seeded is not None:
        known = PARAMETERS[weights.seeded.architecture]
        networks = {"vae": ("vae_decoder",), "unet": ("unet", "unet_context")}
        networks["controlnet"] = ("controlnet", "controlnet_context")
        return sum(known[network] for network in networks.get(kind, (kind,)))
    prefix = "" if weights.file is None else PREFIXES.get(kind, "")  # a ControlNet's file has nothing else
    count = 0
    for path in weights.files:
        if path.suffix != ".safetensors":
            continue
        try:
            tensors = map_tensor_file(path).tensors
        except (OSError, ValueError):  # the source's own finding says so
            continue
        count += sum(math.prod(tensor.shape) for name, tensor in tensors.items() if name.startswith(prefix))
    return count


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())
