"""Few-step methods: the documented settings that distilled LoRAs and checkpoints are made for.

A method sets inputs of `sdxl` that neither the caller nor a quality preset sets. A guidance scale of 0 and 1
mean the same here: guidance is off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

__all__ = ["METHODS", "METHOD_NAMES", "Method", "MethodName", "values_text"]

MethodName = Literal[
    "lcm",
    "lightning-1",
    "lightning-2",
    "lightning-4",
    "lightning-8",
    "turbo",
    "hyper-sd-1",
    "hyper-sd-1-unet",
    "hyper-sd-2",
    "hyper-sd-4",
    "hyper-sd-8",
    "hyper-sd-8-cfg",
    "hyper-sd-12-cfg",
    "dmd2",
    "dmd2-1",
    "tcd",
    "pcm-2",
    "pcm-4",
    "pcm-8",
    "pcm-16",
    "pcm-4-cfg",
    "pcm-8-cfg",
    "pcm-16-cfg",
]
METHOD_NAMES: Final[tuple[str, ...]] = get_args(MethodName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What one method is made for."""

    values: Mapping[str, Any]
    """Values by input."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and largest value that the method allows beside its own, by input."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other choices that it allows, by input."""
    is_base: bool = False
    """Whether it is published as a checkpoint only, and not as a LoRA."""
    source: str
    """Where the settings are documented."""

    def admits(self, name: str, value: Any) -> bool:
        """Whether `value` of the input `name` agrees with the method."""
        own = self.values[name]
        if name in self.ranges:
            low, high = self.ranges[name]
            return bool(low <= value <= high)
        if isinstance(own, float):
            return math.isclose(value, own, abs_tol=1e-6)
        others: tuple[Any, ...] = self.choices.get(name, ())
        return value in (own, *others)

    def allowed(self, name: str) -> str:
        """What the method allows for the input `name`, in words."""
        if name in self.ranges:
            low, high = self.ranges[name]
            return f"{low:g} to {high:g}"
        return " or ".join([values_text(self.values[name]), *self.choices.get(name, ())])


def values_text(value: Any) -> str:
    """A value of an input for people."""
    if isinstance(value, list | tuple):
        return ", ".join(map(values_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_OFF: Final[Mapping[str, Any]] = {"guidance_scale": 0.0}
_STAYS_OFF: Final[Mapping[str, tuple[float, float]]] = {"guidance_scale": (0.0, 1.0)}
_WITH_GUIDANCE: Final[Mapping[str, tuple[float, float]]] = {"guidance_scale": (5.0, 8.0)}
_LCM: Final = "huggingface.co/latent-consistency/lcm-lora-sdxl, arXiv 2311.05556"
_LIGHTNING: Final = "huggingface.co/ByteDance/SDXL-Lightning, arXiv 2402.13929"
_TURBO: Final = "huggingface.co/stabilityai/sdxl-turbo, arXiv 2311.17042"
_HYPER: Final = "huggingface.co/ByteDance/Hyper-SD, arXiv 2404.13686"
_DMD2: Final = "huggingface.co/tianweiy/DMD2, arXiv 2405.14867"
_TCD: Final = "huggingface.co/h1t/TCD-SDXL-LoRA, arXiv 2402.19159"
_PCM: Final = "huggingface.co/wangfuyun/PCM_Weights, arXiv 2405.18407"


def _lightning(steps: int) -> Method:
    values = {"steps": steps, "scheduler": "euler", "schedule": "trailing", **_OFF}
    # The one-step checkpoint predicts the sample: its own scheduler_config.json says so.
    return Method(values=values, ranges=_STAYS_OFF, is_base=steps == 1, source=_LIGHTNING)


def _hyper(steps: int, *, guided: bool = False) -> Method:
    guidance = {"guidance_scale": 5.0} if guided else _OFF
    return Method(
        values={"steps": steps, "scheduler": "ddim", "schedule": "trailing", **guidance},
        ranges=_WITH_GUIDANCE if guided else _STAYS_OFF,
        choices={"scheduler": ("tcd",)},
        source=_HYPER,
    )


def _pcm(steps: int, *, guided: bool = False) -> Method:
    """DDIM has to be without clip_sample and set_alpha_to_one, as SDXL's own configuration has it."""
    guidance = {"guidance_scale": 7.5} if guided else _OFF
    return Method(
        values={"steps": steps, "scheduler": "ddim", "schedule": "trailing", **guidance},
        ranges={} if guided else _STAYS_OFF,
        choices={"scheduler": ("tcd",)},
        source=_PCM,
    )


METHODS: Final[Mapping[str, Method]] = {
    "lcm": Method(
        values={"steps": 4, "scheduler": "lcm", "guidance_scale": 1.0},
        ranges={"steps": (4, 8), "guidance_scale": (0.0, 2.0)},
        source=_LCM,
    ),
    "lightning-1": _lightning(1),
    "lightning-2": _lightning(2),
    "lightning-4": _lightning(4),
    "lightning-8": _lightning(8),
    "turbo": Method(
        values={"steps": 1, "scheduler": "euler_a", "schedule": "trailing", **_OFF},
        ranges={"steps": (1, 4), **_STAYS_OFF},
        is_base=True,
        source=_TURBO,
    ),
    "hyper-sd-1": Method(  # the unified LoRA, for 1 to 8 steps; lower eta gives more detail
        values={"steps": 1, "scheduler": "tcd", "eta": 1.0, **_OFF},
        ranges={"steps": (1, 8), "eta": (0.0, 1.0), **_STAYS_OFF},
        source=_HYPER,
    ),
    "hyper-sd-1-unet": Method(
        values={"timesteps": [800], "scheduler": "lcm", **_OFF},
        ranges=_STAYS_OFF,
        is_base=True,
        source=_HYPER,
    ),
    "hyper-sd-2": _hyper(2),
    "hyper-sd-4": _hyper(4),
    "hyper-sd-8": _hyper(8),
    "hyper-sd-8-cfg": _hyper(8, guided=True),
    "hyper-sd-12-cfg": _hyper(12, guided=True),
    "dmd2": Method(
        values={"timesteps": [999, 749, 499, 249], "scheduler": "lcm", **_OFF},
        ranges=_STAYS_OFF,
        source=_DMD2,
    ),
    "dmd2-1": Method(
        values={"timesteps": [399], "scheduler": "lcm", **_OFF},
        ranges=_STAYS_OFF,
        is_base=True,
        source=_DMD2,
    ),
    "tcd": Method(  # its number of steps may be chosen freely, and more steps want a higher eta
        values={"steps": 4, "scheduler": "tcd", "eta": 0.3, **_OFF},
        ranges={"steps": (1, 50), "eta": (0.0, 1.0), **_STAYS_OFF},
        source=_TCD,
    ),
    "pcm-2": _pcm(2),
    "pcm-4": _pcm(4),
    "pcm-8": _pcm(8),
    "pcm-16": _pcm(16),
    "pcm-4-cfg": _pcm(4, guided=True),
    "pcm-8-cfg": _pcm(8, guided=True),
    "pcm-16-cfg": _pcm(16, guided=True),
}
"""By name: the family, the steps that it was distilled for, and `cfg` where guidance stays on."""
