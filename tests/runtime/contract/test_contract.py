"""Tables, configuration, manifests, errors and imports: the contract the other rooms build on."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio import errors
from intaglio.builds.manifest import (
    FileDigest,
    check_files,
    file_digest,
    read_manifest,
    write_json,
    write_manifest,
)
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.models import ENSEMBLE_STEPS, MODELS, SDXL, model_spec
from intaglio.contract.sdxl import (
    Architecture,
    CrossAttention,
    Residual,
    architecture_from_configs,
    axis_sizes,
    context_name,
    network_spec,
    profiles,
)
from intaglio.errors import ConfigError, EngineMismatch, InvalidRequest, single_line, triton_code_of
from intaglio.sampling.solvers import SOLVERS


@pytest.fixture
def sdxl() -> Architecture:
    """SDXL base's numbers, from the configs on its model card."""
    return architecture_from_configs(
        {
            "block_out_channels": [320, 640, 1280],
            "layers_per_block": 2,
            "projection_class_embeddings_input_dim": 2816,
            "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        },
        text_encoder={"hidden_size": 768, "max_position_embeddings": 77},
        text_encoder_2={"hidden_size": 1280, "projection_dim": 1280},
        vae={"latent_channels": 4, "block_out_channels": [128, 256, 512, 512]},
    )


# --- tensors ---------------------------------------------------------------------------------------------------------


def test_sdxl_architecture(sdxl: Architecture) -> None:
    expected = [(320, 1)] * 3 + [(320, 2)] + [(640, 2)] * 2 + [(640, 4)] + [(1280, 4)] * 2
    assert sdxl.down_residuals == tuple(
        Residual(channels=channels, scale=scale) for channels, scale in expected
    )
    assert sdxl.mid_residual == Residual(channels=1280, scale=4)
    level_1, level_2 = CrossAttention(heads=10, width=64), CrossAttention(heads=20, width=64)
    assert sdxl.control_attentions == (level_1,) * 4 + (level_2,) * 30
    assert sdxl.attentions == sdxl.control_attentions + (level_2,) * 30 + (level_1,) * 6
    assert (sdxl.context_width, sdxl.pooled_width, sdxl.time_ids, sdxl.vae_scale) == (2048, 1280, 6, 8)
    assert Architecture.model_validate_json(sdxl.model_dump_json()) == sdxl


def test_residuals_of_a_step_are_the_107_megabytes_of_the_design(sdxl: Architecture) -> None:
    sizes = axis_sizes(sdxl, width=1024, height=1024)
    unet = network_spec("unet", sdxl)
    residuals = [spec for spec in unet.inputs if "residual" in spec.name]
    total = 0
    for spec in residuals:
        count = 2
        for size in spec.shape(sizes):
            count *= size
        total += count
    assert 105e6 < total < 112e6


def test_sizes_round_up_when_halved(sdxl: Architecture) -> None:
    sizes = axis_sizes(sdxl, width=1280, height=720, images=2, chunks=3)
    assert {name: sizes[name] for name in ("h", "w", "h/2", "h/4", "w/4", "B", "N", "T", "C")} == {
        "h": 90, "w": 160, "h/2": 45, "h/4": 23, "w/4": 40, "B": 2, "N": 4, "T": 231, "C": 6,
    }  # fmt: skip
    assert axis_sizes(sdxl, width=1024, height=1024, images=2, guidance=False)["N"] == 2


def test_controlnet_chains_into_the_unet(sdxl: Architecture) -> None:
    unet, control = network_spec("unet", sdxl), network_spec("controlnet.pose", sdxl)
    for output in control.outputs:
        same = unet.tensor(output.name.removesuffix("_out"))
        assert (same.axes, same.dtype) == (output.axes, output.dtype)
        assert control.tensor(same.name) == same
    assert len({spec.name for spec in control.tensors}) == len(control.tensors)


def test_contexts_are_inputs_of_every_step(sdxl: Architecture) -> None:
    assert (context_name("unet"), context_name("controlnet.my_context")) == (
        "unet_context",
        "controlnet_context.my_context",
    )
    for name in ("unet", "controlnet.pose"):
        step, context = network_spec(name, sdxl), network_spec(context_name(name), sdxl)
        assert set(context.outputs) <= set(step.inputs)
        assert not {spec.name for spec in context.inputs} & {spec.name for spec in step.inputs}


def test_unknown_networks_are_refused(sdxl: Architecture) -> None:
    with pytest.raises(KeyError, match="unknown network 'upscaler'"):
        network_spec("upscaler", sdxl)
    for name in ("controlnet", "unet.pose"):
        with pytest.raises(KeyError, match=f"unknown network '{name}'"):
            network_spec(name, sdxl)


def test_profiles_are_static_and_cover_every_combination(sdxl: Architecture) -> None:
    wanted = {"sizes": [(1024, 1024), (1280, 720)], "batches": (1, 2), "guidance": (True, False), "chunks": 2}
    unet = network_spec("unet", sdxl)
    found = profiles(unet, sdxl, **wanted)  # type: ignore[arg-type]
    assert len(found) == 16
    assert len({profile.name for profile in found}) == 16
    for profile in found:
        low, best, high = profile.shapes(unet.tensor("state"))
        assert low == best == high
    sizes = axis_sizes(sdxl, width=1280, height=720, images=2, guidance=False, chunks=2)
    assert [profile.name for profile in found if profile.admits(sizes)] == ["1280x720-B2-N2-T154"]
    assert len(profiles(network_spec("vae_decoder", sdxl), sdxl, **wanted)) == 4  # type: ignore[arg-type]
    (text,) = profiles(network_spec("text_encoder", sdxl), sdxl, **wanted)  # type: ignore[arg-type]
    assert text.shapes(network_spec("text_encoder", sdxl).tensor("input_ids")) == ((1, 77), (2, 77), (4, 77))


# --- models ----------------------------------------------------------------------------------------------------------


def test_ensemble_feeds_every_required_input() -> None:
    available = {port.name: port for port in SDXL.inputs}
    for step in ENSEMBLE_STEPS:
        stage = model_spec(step.model)
        for port in stage.inputs:
            if not port.optional:
                assert port.name in step.input_map
        for name, source in step.input_map.items():
            assert (available[source].datatype, len(available[source].dims)) == (
                stage.input(name).datatype,
                len(stage.input(name).dims),
            )
        available |= {target: stage.output(name) for name, target in step.output_map.items()}
    assert {port.name for port in SDXL.outputs} <= set(available)
    assert model_spec("preprocess").inputs == SDXL.inputs


def test_choices_and_names() -> None:
    assert SDXL.input("scheduler").choices == SOLVERS
    for model in MODELS:
        assert len({port.name for port in model.inputs}) == len(model.inputs)
    with pytest.raises(KeyError):
        SDXL.input("strength")
    with pytest.raises(KeyError, match="models: sdxl"):
        model_spec("flux")


# --- config ----------------------------------------------------------------------------------------------------------

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
    assert deployment.build_folder == tmp_path / "build" / "tiny"
    assert deployment.fused == {"knight": 0.8}
    assert load(tmp_path, fuse={"knight": 0.5}).fused == {"knight": 0.5}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"name": "x"}, "name: comes from the file's own path"),
        ({"base": []}, "base"),
        ({"base": None}, "base: Field required"),
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
    assert load(tmp_path, server={"grpc_port": 9001}).digest == digest
    changes: list[dict[str, Any]] = [
        {"base": [{"folder": "../other"}]},
        {"vae": {"hub": "madebyollin/sdxl-vae-fp16-fix"}},
        {"controlnets": {}},
        {"fuse": {"knight": 0.7}},
        {"profiles": {"sizes": [[256, 256]], "batch": 2}},
        {"profiles": {"sizes": [[256, 256]], "text_chunks": 1}},
        {"profiles": {"sizes": [[256, 256]], "guidance": ["on"]}},
        {"precision": "fp32"},
        {"runtime": "onnxruntime"},
        {"target": "sm89"},
        {"verify_tolerance": 0.1},
        {"execution": {"threads": 2}},
        {"limits": {"steps": 40}},
        {"defaults": {"steps": 20}},
        {"poses": "poses"},
    ]
    digests = {load(tmp_path, **change).digest for change in changes}
    assert len(digests | {digest}) == len(changes) + 1


# --- manifest --------------------------------------------------------------------------------------------------------


def test_manifest_round_trip_and_refusals(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match=r"No such file.*rebuild with: intaglio build configs/x.yaml"):
        read_manifest(tmp_path, command="intaglio build configs/x.yaml")
    write_manifest(tmp_path, tiny.manifest)
    assert read_manifest(tmp_path) == tiny.manifest
    data = json.loads((tmp_path / "manifest.json").read_text())
    write_json(tmp_path / "manifest.json", data | {"schema_version": 2})
    with pytest.raises(
        EngineMismatch, match=r"schema_version.*rebuild with: intaglio build configs/tiny.yaml"
    ):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EngineMismatch, match="Invalid JSON"):
        read_manifest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_check_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    digest = file_digest(tmp_path / "a")
    check_files(tmp_path, {"a": digest}, command="make")
    for files, reason in (
        ({"b": digest}, "b: missing"),
        ({"../a": digest}, "outside"),
        ({"a": FileDigest(sha256=digest.sha256, size=4)}, "3 bytes, built with 4"),
        ({"a": FileDigest(sha256="1" * 64, size=3)}, "content changed"),
    ):
        with pytest.raises(EngineMismatch, match=f"{reason}.*rebuild with: make"):
            check_files(tmp_path, files, command="make")


# --- errors and imports ----------------------------------------------------------------------------------------------


def test_every_error_is_in_the_drawing_and_mapped() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.IntaglioError)
    ]
    drawing = {
        words[0]: words
        for line in (errors.__doc__ or "").splitlines()
        if (words := line.strip("│├└─ ").split())
    }
    for item in classes:
        assert drawing[item.__name__][1] == item.triton_code
        assert item.__name__ in errors.__all__
    assert triton_code_of(ValueError()) == "INTERNAL"


def test_messages_are_one_line() -> None:
    error = InvalidRequest("prompt", "x\n\x1b[31m" + "y" * 10_000, allowed="a\tb")
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) <= 500
    assert str(error).endswith("; allowed: a b")
    assert single_line("a" * 20, limit=5) == "aaaa…"


def test_serving_code_imports_no_torch() -> None:
    code = (
        "import sys, intaglio.triton_models.stages, intaglio.stages.diffuse.stage, intaglio.stages.preprocess.stage, intaglio.stages.postprocess, intaglio.cli,"
        " intaglio.contract.config, intaglio.tensorrt_engine, intaglio.engines.onnxruntime\n"
        "heavy = {'torch', 'tritonclient', 'tensorrt', 'tensorrt_rtx', 'cuda', 'onnxruntime', 'diffusers', 'cv2', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
