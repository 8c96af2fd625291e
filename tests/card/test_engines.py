"""Engines against float64 on the CPU, without TF32, and on the right card only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import Deployment
from intaglio.contract.tensors import compute_dtype
from intaglio.engines.host_call import HostCall
from intaglio.engines.opening import open_backend
from intaglio.errors import EngineMismatch
from intaglio_export.engines.job import ENGINE_FILES
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.engines.verify import (
    _named_outputs,
    checked_profiles,
    open_verification_backend,
    relative_error,
)
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.sdxl import wrap_network
from intaglio_export.plan.make import NetworkLoader
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageStore

from .conftest import REPOSITORY

NETWORKS = (
    "unet",
    "unet_context",
    "controlnet.pose",
    "controlnet_context.pose",
    "text_encoder",
    "text_encoder_2",
    "vae_decoder",
    "vae_encoder",
)


def exact_outputs(wrapper: Any, given: list[torch.Tensor], network: Any) -> Any:
    """PyTorch's outputs with everything in float64, also what the network itself casts to float32."""
    raised = [values.double() if values.is_floating_point() else values for values in given]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            return _named_outputs(wrapper(*raised), network)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.card("a card and TensorRT-RTX: each network of the miniature beside float64 on the CPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_agrees_with_float64(miniature: Deployment, record: Callable[..., None], name: str) -> None:
    platform = resolve_platform(miniature)
    plan = Plan(miniature, platform, StageStore(miniature.build / ".stages"))
    spec = plan.spec(name)
    dtype = getattr(torch, compute_dtype(plan.precision))
    wrapper = wrap_network(name, NetworkLoader(plan).network(name).cpu().double())
    path = plan.store.path(plan.engine(name)) / ENGINE_FILES[platform.runtime]
    errors: dict[str, float] = {}
    with open_verification_backend(platform, threads=0) as backend:
        engine = backend.load(spec, path, precision=plan.precision)
        call = HostCall(backend, engine)
        for profile in checked_profiles(plan.passes(name)):
            sizes = {axis: size.optimum for axis, size in profile.axes.items()}
            inputs = example_inputs(spec, sizes, precision="fp32", seed=1)
            for tensor in spec.inputs:
                if tensor.dtype == "compute":
                    inputs[tensor.name] = inputs[tensor.name].to(dtype)
            exact = exact_outputs(wrapper, [inputs[tensor.name] for tensor in spec.inputs], spec)
            found = call(sizes, **{tensor: values.numpy() for tensor, values in inputs.items()})
            errors[profile.name] = max(relative_error(found[key], exact[key]) for key in exact)
        call.close()
        engine.close()
    record(**{f"error_{name}": {profile: float(f"{error:.3g}") for profile, error in errors.items()}})
    assert max(errors.values()) <= plan.tolerance


@pytest.mark.card("a card: that a build for another card is refused", only=True)
def test_engines_of_another_card_are_refused(miniature: Deployment) -> None:
    """Before any of them is opened: the library itself would load some of them."""
    manifest = read_manifest(miniature.build_folder)
    other = "sm89" if manifest.target == "sm120" else "sm120"
    with pytest.raises(EngineMismatch, match=f"for a card of {other}.*rebuild with: intaglio build"):
        open_backend(manifest.model_copy(update={"target": other}))


@pytest.mark.card("a card and TensorRT-RTX: a build in fp32, whose engines compute without TF32")
def test_fp32_is_float32(tmp_path: Path, record: Callable[..., None]) -> None:
    values = {
        "base": {"folder": str(REPOSITORY / "miniature/model")},
        "controlnets": {"pose": {"folder": str(REPOSITORY / "miniature/controlnets/pose"), "type": "pose"}},
        "profiles": {"sizes": [[256, 256]], "text_chunks": 1},
        "precision": "fp32",
        "build": str(tmp_path / "build"),
    }
    path = tmp_path / "exact.yaml"
    path.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "intaglio", "build", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = {}
    for file in sorted((tmp_path / "build" / ".stages" / "verify").glob("*/*/verification.json")):
        found[file.parts[-3]] = max(json.loads(file.read_text()).values())
    record(fp32_errors_to_pytorch=found)
    assert max(found.values()) <= 0.001
