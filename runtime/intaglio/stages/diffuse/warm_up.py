"""Requests that make every network set up what the first real request would wait for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.ports import string_tensor
from intaglio.contract.sdxl import (
    axis_sizes,
    network_spec,
)
from intaglio.engines.interface import Array

__all__ = ["warm_up_controls", "warm_up_tensors"]


def warm_up_controls(manifest: BuildManifest) -> Iterator[tuple[str, ...]]:
    """Every control, in groups that one request of one step may ask for; one group without any."""
    width, height = manifest.profiles.sizes[0]
    most = min(manifest.limits.controls, manifest.limits.cost // (width * height) - 1)
    if most < 1 or not manifest.controlnets:
        yield ()
        return
    names = tuple(manifest.controlnets)
    for begin in range(0, len(names), most):
        yield names[begin : begin + most]


def warm_up_tensors(
    manifest: BuildManifest, *, guidance: bool, controls: Sequence[str]
) -> Mapping[str, Array]:
    """A request of one step with `controls`."""
    width, height = manifest.profiles.sizes[0]
    prompts = 2 if guidance else 1
    architecture = manifest.architecture
    sizes = axis_sizes(architecture, width=width, height=height, guidance=guidance)
    unet = network_spec("unet", architecture)
    ids = np.zeros((2, prompts, 1, architecture.tokens), np.int64)
    entries = [{"control": control, "weight": 1.0, "begin": 0.0, "end": 1.0} for control in controls]
    maps = (len(controls), height, width, 3) if controls else (1, 1, 1, 3)
    return {
        "token_ids": ids,
        "token_weights": np.ones(ids.shape, np.float32),
        "zero_negative": np.array([False]),
        "time_ids": np.zeros((prompts, architecture.time_ids), np.float32),
        "guidance_scale": np.ones(1, np.float32),
        "timesteps": np.ones(1, np.float32),
        "input_scale": np.ones(1, np.float32),
        "coefficients": np.zeros((1, *unet.tensor("coefficients").shape(sizes)), np.float32),
        "noise": np.zeros((1, *unet.tensor("noise").shape(sizes)), np.float32),
        "state": np.zeros(unet.tensor("state").shape(sizes), np.float32),
        "controls": string_tensor(json.dumps(entries)),
        "control_maps": np.zeros(maps, np.uint8),
        "loras": string_tensor("[]"),
    }
