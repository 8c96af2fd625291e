"""Which settings are tried: the built-in grids, a user's own file, and what of them this version can draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.contract.models import SDXL
from intaglio.contract.yaml_files import Strict, read_yaml, validated
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.sampling.solvers import model_calls
from intaglio.sampling.spacings import karras_sigmas
from intaglio.sampling.trajectory import Trajectory
from intaglio_client.names import CONTROL_ALIASES
from intaglio_client.tune.settings import OF_CONTROLS, Setting, fixed_defaults, named_setting, wrong_input

__all__ = [
    "ANCHORS",
    "BASELINE",
    "CONVERGED",
    "FAMILIAR",
    "FULL",
    "QUICK",
    "REFERENCE",
    "Grid",
    "drawable",
    "grid_of",
    "lora_settings",
    "most_steps",
    "read_grid",
    "why_left_out",
]

_DPM: Final = "dpmpp_2m_karras"
_HIGHEST: Final = 14.6146
"""The noise level of SDXL's last training time."""
REFERENCE: Final = named_setting({"scheduler": _DPM, "steps": 100}, name="reference")
"""Converged: a solver of second order after many steps. All solvers that add no noise draw this picture in
the limit of many steps, since they solve the same differential equation from the same noise.
"""
CONVERGED: Final = named_setting({"scheduler": _DPM, "steps": 60})
"""Its distance to the reference says how far the reference has converged."""
BASELINE: Final = named_setting({"scheduler": "euler", "steps": 30})
"""What everybody knows, and what seconds are compared with."""
FAMILIAR: Final = named_setting({"scheduler": _DPM, "steps": 30})
"""What `high` must equal."""


def _inputs(scheduler: str, *steps: int, **others: Any) -> list[dict[str, Any]]:
    return [{"scheduler": scheduler, "steps": count, **others} for count in steps]


def _earlier(steps: int, **others: Any) -> Setting:
    """Fewer steps at low noise than `karras` has: its formula with exponent 4, from the highest level of
    SDXL's betas to 0.05.
    """
    sigmas = karras_sigmas(_HIGHEST, 0.05, steps, rho=4)
    inputs = {"scheduler": "dpmpp_2m", "sigmas": [*(float(f"{sigma:.4g}") for sigma in sigmas), 0.0]}
    shown = "".join(f", {key} {value}" for key, value in others.items())
    return named_setting({**inputs, **others}, name=f"dpmpp_2m {steps}, sigmas of exponent 4{shown}")


ANCHORS: Final = (BASELINE, FAMILIAR, CONVERGED)
"""Settings that the rule compares others with. They are in every grid."""
QUICK: Final = tuple(
    named_setting(one)
    for one in (
        *_inputs(_DPM, 8, 10, 12, 15, 20),
        *_inputs(_DPM, 10, 12, 15, control_every=2),
    )
)
FULL: Final = (
    *QUICK,
    *(
        named_setting(one)
        for one in (
            *_inputs("euler", 10, 20),
            *_inputs("euler", 20, sparse_begin=0.3, sparse_every=2),
            *_inputs("unipc", 10, 20),
            *_inputs("unipc", 15, schedule="karras"),
            *_inputs(_DPM, 20, 30, control_every=2),
            *_inputs("dpmpp_2m", 10, 15, schedule="ays"),
            *_inputs("dpmpp_2m", 15, schedule="beta"),
            *_inputs(_DPM, 15, guidance_end=0.8),
            *_inputs(_DPM, 15, control_guidance_end=0.6),
        )
    ),
    *(_earlier(steps, control_every=2) for steps in (12, 13, 14)),
    named_setting({"scheduler": "euler_a", "steps": 20}, apart="adds noise in every step"),
)
_OF_TRAJECTORY: Final = tuple(field.name for field in dataclasses.fields(Trajectory))
_NEED_GUIDANCE: Final = ("guidance_begin", "guidance_end", "guidance_rescale")


class _FileSetting(Strict):
    """One entry of a user's grid."""

    inputs: dict[str, Any] = Field(min_length=1)
    name: str = ""
    apart: str = ""


class _File(Strict):
    settings: tuple[_FileSetting, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Grid:
    """What is drawn of every scene."""

    reference: Setting
    settings: tuple[Setting, ...]
    left_out: tuple[str, ...] = ()
    """A line for each entry that is not drawn, and why."""


def read_grid(path: Path) -> tuple[Setting, ...]:
    """A user's settings: `settings: [{inputs: {steps: 12, scheduler: unipc}}, ...]`.

    Raises:
        ConfigError: the file is no such list, or an entry has an unknown input or a value that is not
            allowed.
    """
    found = []
    for index, entry in enumerate(validated(_File, read_yaml(path), path).settings):
        problem = wrong_input(entry.inputs)
        if problem is not None:
            raise ConfigError(f"{path}: settings[{index}]: {problem}")
        found.append(named_setting(entry.inputs, name=entry.name, apart=entry.apart))
    return tuple(found)


def lora_settings(deployment: Deployment) -> tuple[Setting, ...]:
    """A setting for every LoRA of a few-step method in the registry. Its method says steps and solver, so the
    setting states nothing else.
    """
    if not deployment.swaps or deployment.registry is None:
        return ()
    entries = load_registry(deployment.registry).loras
    found = []
    for lora, entry in entries.items():
        if entry.method is not None:
            apart = f"another model: {entry.method}"
            found.append(named_setting({"loras": [{"id": lora}]}, name=f"lora {lora}", apart=apart))
    return tuple(found)


def grid_of(deployment: Deployment, settings: Sequence[Setting], *, controls: int, pixels: int) -> Grid:
    """The reference, the anchors and those of `settings` that the deployment can draw, each only once.

    Args:
        controls: most controls that a scene has. Without any, settings of controls change nothing.
        pixels: width times height of the largest scene.

    Raises:
        ConfigError: the deployment's limits allow fewer steps than the anchors need, its default preset
            changes them, its checkpoint is for few steps only, or two settings have one name.
    """
    most = most_steps(deployment, controls=controls, pixels=pixels)
    reference = _shortened(REFERENCE, most)
    _check_comparable(deployment)
    if most < CONVERGED.inputs["steps"]:
        needed = CONVERGED.inputs["steps"]
        raise ConfigError(
            f"limits.steps and limits.cost allow {most} steps of these scenes; at least {needed} are needed"
        )
    kept, left_out = drawable(deployment, (*ANCHORS, *settings), controls=controls, most=most)
    return Grid(reference, tuple(kept), tuple(left_out))


def drawable(
    deployment: Deployment, settings: Sequence[Setting], *, controls: int, most: int
) -> tuple[list[Setting], list[str]]:
    """Those of `settings` that the deployment can draw, each only once, and a line for each other one.

    Args:
        controls: most controls that a scene has.
        most: most steps that the deployment's limits allow of the scenes.

    Raises:
        ConfigError: two settings have one name.
    """
    kept: dict[str, Setting] = {}
    left_out = []
    for setting in settings:
        why = why_left_out(setting, deployment, controls=controls, most=most)
        if why is None:
            before = kept.setdefault(setting.file_name, setting)
            if before.inputs != setting.inputs:
                raise ConfigError(f"two settings are named {setting.name!r}; give each a name of its own")
        else:
            left_out.append(f"left out: {setting.name}: {why}")
    return list(kept.values()), left_out


def most_steps(deployment: Deployment, *, controls: int, pixels: int) -> int:
    """The most steps that the deployment's limits allow of such a picture."""
    return min(deployment.limits.steps, deployment.limits.cost // (pixels * (1 + controls)))


def _check_comparable(deployment: Deployment) -> None:
    """Raise ConfigError where no picture of many steps can be compared with."""
    if deployment.method is not None:
        raise ConfigError(
            f"method {deployment.method}: a checkpoint for few steps has no converged picture; "
            "tune the checkpoint that it was distilled from"
        )
    values = set(deployment.defaults.preset_values) - set(BASELINE.inputs) - {"guidance_scale"}
    if lasting := sorted(values - set(fixed_defaults())):
        preset = deployment.defaults.preset
        raise ConfigError(
            f"defaults.preset {preset} sets {lasting[0]} for every picture, also for those that others are "
            "compared with; take preset out of defaults while you tune"
        )


def _shortened(reference: Setting, most: int) -> Setting:
    steps = min(int(reference.inputs["steps"]), most)
    return named_setting({**reference.inputs, "steps": steps}, name=reference.name)


def why_left_out(setting: Setting, deployment: Deployment, *, controls: int, most: int) -> str | None:
    """Why the setting is not drawn; None where it is."""
    return next(_obstacles(setting, deployment, controls=controls, most=most), None)


def _obstacles(setting: Setting, deployment: Deployment, *, controls: int, most: int) -> Iterator[str]:
    inputs: Mapping[str, Any] = setting.inputs
    known = {port.name for port in SDXL.inputs} | set(CONTROL_ALIASES)
    for name in inputs:
        if name not in known:
            yield f"this version has no input {name}"
    if controls == 0 and any(name in inputs for name in OF_CONTROLS):
        yield "no scene has a control"
    if any(name in inputs for name in _NEED_GUIDANCE) and "off" not in deployment.profiles.guidance:
        yield "the deployment has no steps without guidance (profiles.guidance)"
    problem = wrong_input(inputs)
    if problem is not None:
        yield problem
    elif "loras" not in inputs:  # a LoRA's method says what such a setting leaves out
        yield from _too_long(inputs, deployment, most=most)


def _too_long(inputs: Mapping[str, Any], deployment: Deployment, *, most: int) -> Iterator[str]:
    """What is wrong with the trajectory of `inputs`, or that it calls the model more than `most` times."""
    try:
        calls = model_calls(_trajectory(inputs, deployment))
    except InvalidRequest as error:
        yield str(error)
        return
    if calls > most:
        yield f"the deployment allows {most} steps of these scenes; this takes {calls}"


def _trajectory(inputs: Mapping[str, Any], deployment: Deployment) -> Trajectory:
    """The trajectory of a request with `inputs`, as the server completes it.

    Raises:
        InvalidRequest: the inputs contradict each other.
    """
    given: dict[str, Any] = {name: inputs[name] for name in _OF_TRAJECTORY if name in inputs}
    for name in ("timesteps", "sigmas"):
        if name in given:
            given[name] = tuple(map(float, given[name]))
    if "timesteps" in given:
        given.setdefault("steps", len(given["timesteps"]))
    elif "sigmas" in given:
        given.setdefault("steps", len(given["sigmas"]) - 1)
    defaults = deployment.defaults
    return Trajectory(**{"steps": defaults.steps, "scheduler": defaults.scheduler, **given})
