"""Deployments: what is read, what is refused, what a build depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import (
    LoraRegistry,
    load_registry,
)
from intaglio.errors import ConfigError

BASE: dict[str, Any] = {
    "base": [{"folder": "../model"}],
    "controlnets": {"pose": {"folder": "../pose", "type": "pose"}},
    "loras": {"knight": {"path": "../knight.safetensors", "weight": 0.8}},
    "fuse": {"knight": None},
    "profiles": {"sizes": [[256, 256]]},
}


def load(tmp_path: Path, **changes: Any) -> Deployment:
    path = tmp_path / "configs" / "tiny.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        yaml.safe_dump({name: value for name, value in (BASE | changes).items() if value is not None})
    )
    return load_deployment(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    deployment = load(tmp_path)
    assert deployment.name == "tiny"
    assert deployment.base[0].folder == tmp_path / "model"
    assert deployment.loras["knight"].path == tmp_path / "knight.safetensors"
    assert deployment.build_folder == tmp_path / "configs/build/tiny"
    assert deployment.fused == {"knight": 0.8}
    assert load(tmp_path, fuse={"knight": 0.5}).fused == {"knight": 0.5}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": 1}, "unknown key colour; known keys: base, vae"),
        ({"name": "x"}, "name: comes from the file's own path"),
        ({"base": []}, "base"),
        ({"base": None}, "key base is missing"),
        ({"base": [{"folder": "a", "hub": "b/c"}]}, "exactly one of folder, file, hub"),
        ({"base": [{"file": "model.ckpt"}]}, "must be .safetensors"),
        ({"base": [{"folder": "a", "revision": "main"}]}, "revision goes with hub"),
        ({"fuse": {"wizard": 1.0}}, "does not list: wizard"),
        ({"fuse": {"knight": ".nan"}}, "fuse.knight"),
        ({"controlnets": {"../x": {"folder": "a", "type": "pose"}}}, "controlnets"),
        ({"profiles": {"sizes": [[250, 256]]}}, "multiples of 8"),
        ({"profiles": {"sizes": [[256, 256], [256, 256]]}}, "listed twice"),
        ({"profiles": {"sizes": [[256, 256]], "batch": 8}}, "above limits.images"),
        ({"profiles": {"sizes": [[256, 256]], "guidance": ["off"]}}, "needs a guidance mode"),
        ({"runtime": "onnxruntime", "target": "sm89"}, "runs on the CPU"),
        ({"runtime": "tensorrt-rtx", "target": "cpu"}, "target cpu"),
        ({"defaults": {"steps": 60}, "limits": {"steps": 50}}, "above limits.steps"),
        ({"server": {"http_port": 8001}}, "must differ"),
        ({"verify_tolerance": 0}, "verify_tolerance"),
    ],
)
def test_impossible_configurations(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load(tmp_path, **change)
    assert "tiny.yaml" in str(caught.value)


def test_a_port_of_zero_is_any_free_one(tmp_path: Path) -> None:
    assert load(tmp_path, server={"http_port": 0, "grpc_port": 0, "metrics_port": 0}).server.grpc_port == 0


def test_unreadable_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_deployment(tmp_path / "absent.yaml")
    for text in ("- 1", "a: [", "\x00"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError):
            load_deployment(tmp_path / "x.yaml")


def test_digest_follows_what_is_built_and_nothing_else(tmp_path: Path) -> None:
    digest = load(tmp_path).digest
    (tmp_path / "elsewhere").mkdir()
    assert load(tmp_path / "elsewhere").digest == digest
    assert load(tmp_path, server={"grpc_port": 9001, "drain_seconds": 300}).digest == digest
    assert load(tmp_path, server={"log_format": "json", "traces": "http://a/b"}).digest == digest
    changes: list[dict[str, Any]] = [
        {"base": [{"folder": "../other"}]},
        {"vae": {"hub": "madebyollin/sdxl-vae-fp16-fix"}},
        {"controlnets": {}},
        {"fuse": {"knight": 0.7}},
        {"profiles": {"sizes": [[256, 256]], "batch": 2}},
        {"profiles": {"sizes": [[256, 256]], "text_chunks": 1}},
        {"profiles": {"sizes": [[256, 256]], "guidance": ["on"]}},
        {"profiles": {"sizes": [[256, 256]], "ranges": ["guidance"]}},
        {"precision": "fp32"},
        {"precision": "auto"},
        {"runtime": "onnxruntime"},
        {"target": "sm89"},
        {"verify_tolerance": 0.1},
        {"execution": {"threads": 2}},
        {"limits": {"steps": 40}},
        {"defaults": {"steps": 20}},
        {"poses": "poses"},
        {"server": {"gpus": [0, 1]}},
        {"server": {"gpus": [0, 1], "hang_seconds": 30}},
    ]
    digests = {load(tmp_path, **change).digest for change in changes}
    assert len(digests | {digest}) == len(changes) + 1


ENTRY: dict[str, Any] = {"file": "night.safetensors", "kind": "style"}


def registry(tmp_path: Path, **changes: Any) -> LoraRegistry:
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": {"night": ENTRY | changes}}))
    return load_registry(path)


def test_a_deployment_has_the_registrys_loras(tmp_path: Path) -> None:
    registry(tmp_path, weight=0.5)
    base: dict[str, Any] = {
        "base": [{"folder": "model"}],
        "profiles": {"sizes": [[64, 64]]},
        "registry": "loras.yaml",
    }

    def load(**changes: Any) -> Any:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(base | changes))
        return load_deployment(tmp_path / "x.yaml")

    assert load(fuse={"night": None}).fused == {"night": 0.5}
    swapping = load(swap="transformer").digest
    fused = load(fuse={"night": 0.5}).digest
    registry(tmp_path, weight=0.6)
    assert load(swap="transformer").digest == swapping, "LoRAs come and go while it is served"
    assert load(fuse={"night": 0.5}).digest != fused
    assert load(swap="all").digest != swapping
    for changes, problem in (
        ({"swap": "transformer", "fuse": {"night": None}}, "use one of them"),
        ({"swap": "transformer", "registry": None}, "swap serves the LoRAs of a registry"),
        ({"swap": "some"}, "swap"),
        ({"loras": {"night": {"path": "x.safetensors"}}}, "loras.yaml has a LoRA of that id too"),
        ({"registry": "absent.yaml"}, "no such file"),
    ):
        with pytest.raises(ConfigError, match=problem):
            load(**changes)


@pytest.mark.parametrize(
    ("asked", "runtime", "precision", "tolerance"),
    [
        ("auto", "onnxruntime", "fp32", 0.001),
        ("auto", "tensorrt-rtx", "fp16", 0.012),
        ("auto", "tensorrt", "fp16", 0.012),
        ("fp16", "onnxruntime", "fp16", 0.012),
        ("fp32", "tensorrt-rtx", "fp32", 0.001),
    ],
)
def test_precision_and_tolerance_follow_the_runtime(
    tmp_path: Path, asked: str, runtime: Any, precision: str, tolerance: float
) -> None:
    deployment = load(tmp_path, precision=asked)
    assert deployment.precision_on(runtime) == precision
    assert deployment.tolerance_on(runtime) == tolerance
    assert deployment.resolved_for(runtime).precision == precision
    assert load(tmp_path, precision=asked, verify_tolerance=0.05).tolerance_on(runtime) == 0.05


@pytest.mark.parametrize("name", ["miniature", "sdxl", "sdxl-seeded", "traffic"])
def test_the_examples_are_deployments(name: str) -> None:
    deployment = load_deployment(Path(__file__).parents[3] / "configs" / f"{name}.yaml")
    assert deployment.controlnets
    if name == "traffic":
        assert deployment.controlnets["segmentation"].palette == "cityscapes"
        assert deployment.profiles.sizes == ((1280, 720),)


def knight(method: str) -> dict[str, Any]:
    return {"knight": {"path": "../knight.safetensors", "method": method}}


def test_the_build_has_the_method_of_its_base_and_of_its_fused_loras(tmp_path: Path) -> None:
    assert load(tmp_path).built_method is None
    assert load(tmp_path, method="turbo").built_method == "turbo"
    assert load(tmp_path, loras=knight("lcm")).built_method == "lcm"
    assert load(tmp_path, loras=knight("lcm"), fuse=None).built_method is None, "it is not fused"
    (tmp_path / "configs/loras.yaml").write_text(
        yaml.safe_dump({"loras": {"fast": {"file": "x.safetensors", "kind": "style", "method": "lcm"}}})
    )
    deployment = load(tmp_path, loras=None, fuse={"fast": None}, registry="loras.yaml")
    assert deployment.built_method == "lcm"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"method": "lmc"}, "method is 'lmc'; allowed: lcm, lightning-1"),
        ({"loras": knight("turbo")}, "loras.knight.method: turbo is published as a checkpoint only"),
        (
            {"method": "tcd", "loras": knight("lcm")},
            "methods contradict: base has tcd, loras.knight has lcm; keep one few-step method",
        ),
        (
            {"method": "hyper-sd-12-cfg", "limits": {"steps": 11}, "defaults": {"steps": 4}},
            r"base \(method hyper-sd-12-cfg\).steps 12 is above limits.steps 11",
        ),
        (
            {"loras": knight("lcm"), "profiles": BASE["profiles"] | {"guidance": ["on"]}},
            r"loras.knight \(method lcm\).guidance_scale 1 needs a guidance mode",
        ),
    ],
)
def test_methods_that_cannot_be_served_are_refused(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, **change)
