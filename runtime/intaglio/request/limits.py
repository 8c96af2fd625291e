"""The limits of one request, for every model that a caller can reach.

`sdxl` and `preprocess` read a request, `diffuse` and `postprocess` read tensors. All check with these
functions, so a limit is stated once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.sdxl import control_of
from intaglio.errors import InvalidRequest

__all__ = [
    "TOKEN_WEIGHTS",
    "Workload",
    "check_clip_skip",
    "check_limits",
    "check_resident",
    "check_size",
    "check_window",
    "inside_window",
]

TOKEN_WEIGHTS: Final = (-10.0, 10.0)
"""Least and largest weight of a token, nested brackets multiplied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How much a request asks for, as far as its tensors say."""

    width: int
    height: int
    images: int
    steps: int = 1
    controls: int = 0

    @property
    def per_step(self) -> int:
        """Pixels of one step: width x height x images x (1 + controls)."""
        return self.width * self.height * self.images * (1 + self.controls)


def check_limits(
    work: Workload, limits: Limits, *, steps_field: str = "steps", images_field: str = "num_images"
) -> None:
    """Raise InvalidRequest where `work` exceeds `limits`; the fields are those that an error names."""
    for name, value, least, most in (
        (steps_field, work.steps, 1, limits.steps),
        (images_field, work.images, 1, limits.images),
        ("controls", work.controls, 0, limits.controls),
    ):
        if not least <= value <= most:
            raise InvalidRequest(name, f"{value} is out of range", allowed=f"{least} to {most}")
    if work.per_step * work.steps > limits.cost:
        raise InvalidRequest(
            steps_field,
            f"{work.steps} steps of {work.per_step} pixels "
            "(width x height x images x (1 + controls)) cost too much",
            allowed=f"1 to {limits.cost // work.per_step} with these, a product of {limits.cost}",
        )


def check_resident(controls: Iterable[str], manifest: BuildManifest) -> None:
    """Raise InvalidRequest where the ControlNets of `controls` cannot be open at the same time.

    `controls` are the ids of a request's controls, without those of weight 0. An id may be there twice, and a
    ControlNet-Union serves several ids.
    """
    wanted = sorted({manifest.control_network(control) for control in controls})
    most, every = manifest.resident_controlnets, len(manifest.control_networks)
    if len(wanted) <= most:
        return
    sizes = ", ".join(
        f"{control_of(network)} {manifest.controlnet_bytes(network) / 2**20:.1f} MiB" for network in wanted
    )
    raise InvalidRequest(
        "controls",
        f"{len(wanted)} ControlNets at once: {sizes}",
        allowed=f"at most {most} of the {every} at once (execution.resident_controlnets)",
    )


def check_clip_skip(layers: int, *, most: int) -> None:
    """Raise InvalidRequest unless 0 <= `layers` <= `most`: no text encoder has an earlier state."""
    if not 0 <= layers <= most:
        raise InvalidRequest("clip_skip", f"{layers} is out of range", allowed=f"0 to {most}")


def check_size(size: tuple[int, int], built: tuple[tuple[int, int], ...], *, field: str) -> None:
    """Raise InvalidRequest where `size`, (width, height) in pixels, is not one of the `built` sizes."""
    if size not in built:
        allowed = ", ".join(f"{width}x{height}" for width, height in built)
        raise InvalidRequest(field, f"{size[0]}x{size[1]} is not built", allowed=allowed)


def check_window(begin: float, end: float, *, field: str) -> None:
    """Raise InvalidRequest unless 0 <= begin < end <= 1, shares of the steps."""
    if not 0 <= begin < end <= 1:
        problem = f"{begin:g} is not before end {end:g}"
        raise InvalidRequest(field, problem, allowed="0 to 1, less than end")


def inside_window(window: tuple[float, float], step: int, steps: int) -> bool:
    """Whether `step` of `steps` lies in `window`, shares of the steps, from its beginning to its end."""
    begin, end = window
    return step / steps >= begin and (step + 1) / steps <= end
