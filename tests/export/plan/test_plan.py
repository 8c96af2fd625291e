"""What the key of each stage depends on: the tensor table, our sources, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from intaglio.contract.architecture import architecture_from_configs
from intaglio.contract.config import load_deployment
from intaglio.contract.sdxl import network_spec, networks_of
from intaglio.contract.tensors import NetworkSpec, TensorSpec
from intaglio.errors import BuildError, ConfigError, LoraRefused
from intaglio_export.engines.platform import Platform
from intaglio_export.plan import plan as planning
from intaglio_export.plan import source_modules
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.source_modules import ENGINE_MODULES, SEEDED_MODULES, STAGE_MODULES, module_files
from intaglio_export.plan.stages import Stage, StageStore
from intaglio_export.weights.seeded import ARCHITECTURES

from ...checkpoint import ROOT, Checkpoint
from ..conftest import write_config

ONNX_RUNTIME = Platform("onnxruntime", "cpu", "1", on_gpu=False)
TENSORRT = Platform("tensorrt-rtx", "sm89", "1", on_gpu=True)
SEEDED = {"architecture": "sdxl-reduced", "seed": 0}
CONFIGS: Any = ARCHITECTURES["sdxl-reduced"]
ARCHITECTURE = architecture_from_configs(
    CONFIGS["unet"],
    text_encoder=CONFIGS["text_encoder"],
    text_encoder_2=CONFIGS["text_encoder_2"],
    vae=CONFIGS["vae"],
)
NETWORKS = networks_of(["controlnet.pose"], swaps=True)


def every_tensor() -> list[tuple[str, str]]:
    """(network, tensor) of the whole table."""
    found = []
    for network in NETWORKS:
        found += [(network, tensor.name) for tensor in network_spec(network, ARCHITECTURE).tensors]
    return found


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A deployment with every kind of network, whose weights come from a seed: its plan needs no files."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "loras.yaml").write_text("loras: {}\n")
    path = folder / "plate.yaml"
    path.write_text(
        "base: {architecture: sdxl-reduced, seed: 0}\n"
        "controlnets: {pose: {architecture: sdxl-reduced, seed: 1, type: pose}}\n"
        "registry: loras.yaml\n"
        "swap: all\n"
        "profiles: {sizes: [[64, 64]]}\n"
    )
    return load_deployment(path)


@pytest.fixture
def plan(deployment: Any, tmp_path: Path) -> Plan:
    return Plan(deployment, TENSORRT, StageStore(tmp_path))


def keys(plan: Plan) -> dict[str, str]:
    """A new plan's keys by stage, so that nothing is remembered."""
    again = Plan(plan.deployment, plan.platform, plan.store)
    return {stage.name: stage.key for stage in again.stages}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, key in after.items() if key != before[name]}


def with_tensor(spec: NetworkSpec, name: str, new: TensorSpec) -> NetworkSpec:
    """`spec` with another tensor in place of `name`."""

    def replaced(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(new if spec.name == name else spec for spec in specs)

    return NetworkSpec(spec.name, replaced(spec.inputs), replaced(spec.outputs))


@pytest.mark.parametrize(("network", "name"), every_tensor())
def test_every_tensor_of_the_table_is_in_the_keys(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, network: str, name: str
) -> None:
    """A server refuses an engine whose tensors are not those of its table, so it must be made again."""
    spec = plan.spec(network)
    tensor = spec.tensor(name)
    graph, engine = plan.onnx(network).key, plan.engine(network).key
    other = "int64" if tensor.dtype == "float32" else "float32"
    variants = [
        replace(tensor, name=f"{name}_renamed"),
        replace(tensor, dtype=other),
        replace(tensor, axes=(*tensor.axes, 1)),
    ]
    for variant in variants:
        with monkeypatch.context() as patched:
            patched.setattr(Plan, "spec", lambda _, one, v=variant: with_tensor(spec, name, v))
            patched.setattr(Plan, "profiles", lambda _, one: ())
            assert plan.onnx(network).key != graph
            assert plan.engine(network).key != engine
    assert plan.onnx(network).key == graph
    assert plan.engine(network).key == engine


def test_the_order_of_tensors_is_in_the_keys(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = plan.spec("unet")
    before = plan.onnx("unet").key
    swapped = NetworkSpec(spec.name, (spec.inputs[1], spec.inputs[0], *spec.inputs[2:]), spec.outputs)
    monkeypatch.setattr(Plan, "spec", lambda _, one: swapped)
    assert plan.onnx("unet").key != before


def test_a_tensor_of_one_network_leaves_the_others_alone(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(plan)

    def renamed(network: str, architecture: Any) -> NetworkSpec:
        spec = network_spec(network, architecture)
        if network != "vae_encoder":
            return spec
        return with_tensor(spec, "sample", replace(spec.tensor("sample"), name="pixels"))

    monkeypatch.setattr(planning, "network_spec", renamed)
    assert changed(before, keys(plan)) == {"onnx/vae_encoder", "engine/vae_encoder", "verify/vae_encoder"}


ALL = ("onnx", "engine", "verify", "pristine")
"""Every kind that follows from a graph."""
CHANGES = {
    "intaglio_export.weights.seeded": ALL,
    "intaglio.sampling.noise": ALL,
    "intaglio_export.plan.make": ALL,
    "intaglio_export.weights.load": ALL,
    "intaglio_export.weights.checkpoint_files": ALL,
    "intaglio_export.weights.vae_range": ALL,
    "intaglio_export.weights.configuration": ALL,
    "intaglio_export.weights.controlnet_files": ALL,
    "intaglio_export.weights.latents": ALL,
    "intaglio_export.weights.single_file": ALL,
    "intaglio.loras.tensor_files": ALL,
    "intaglio_export.graphs.examples": ALL,
    "intaglio_export.graphs.export": ALL,
    "intaglio_export.graphs.onnx_weights": ALL,
    "intaglio_export.graphs.attention": ALL,
    "intaglio_export.graphs.controlnets": ALL,
    "intaglio_export.graphs.sdxl": ALL,
    "intaglio_export.weights.text_encoders": ALL,
    "intaglio.text_encoder_names": ALL,
    "intaglio_export.weights.swapped_weights": ("engine", "verify", "pristine"),
    "intaglio_export.graphs.pristine": ("pristine",),
    "intaglio_export.engines.compile": ("engine", "verify"),
    "intaglio_export.engines.job": ("engine", "verify"),
    "intaglio_export.engines.tensorrt": ("engine", "verify"),
    "intaglio_export.engines.onnxruntime": (),
    "intaglio_export.engines.verify": ("verify",),
    "intaglio_export.weights.fuse": (),
    "intaglio.engines.onnx_file": ("engine", "verify", "pristine"),
    "intaglio.engines": ("engine", "verify", "pristine"),
    "intaglio.loras.adapters": (),
    "intaglio.loras.files": ("pristine",),
    "intaglio.loras.layer_names": (),
    "intaglio.loras.layer_shapes": (),
    "intaglio.loras.layers": (),
}
"""Kinds of stages that are done again when a module changes; the plan is TensorRT's and fuses nothing."""


def test_every_named_module_has_its_case() -> None:
    named = set(SEEDED_MODULES).union(*STAGE_MODULES.values(), *ENGINE_MODULES.values())
    assert named == set(CHANGES)


@pytest.mark.parametrize("module", CHANGES)
def test_a_changed_module_changes_the_right_keys(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    before = keys(plan)
    touched = set(module_files(module))

    def edited(name: str) -> list[Path]:
        """The module's files, those of `module` with a line more."""
        files = []
        for number, path in enumerate(module_files(name)):
            if path in touched:
                copy = tmp_path / f"{number}.py"
                copy.write_bytes(path.read_bytes() + b"\n# changed\n")
                path = copy  # noqa: PLW2901
            files.append(path)
        return files

    monkeypatch.setattr(source_modules, "module_files", edited)
    kinds = {name.partition("/")[0] for name in changed(before, keys(plan))}
    assert kinds == set(CHANGES[module])


def test_a_changed_fuser_redoes_what_it_fused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "a.yaml", checkpoint, fuse={"style": None})
    plan = Plan(load_deployment(config), ONNX_RUNTIME, StageStore(tmp_path))
    before = keys(plan)
    fuser = module_files("intaglio_export.weights.fuse")[0]
    copy = tmp_path / "fuse.py"
    copy.write_bytes(fuser.read_bytes() + b"\n# changed\n")
    monkeypatch.setattr(
        source_modules,
        "module_files",
        lambda name: [copy if path == fuser else path for path in module_files(name)],
    )
    found = {name.partition("/")[2] for name in changed(before, keys(plan))}
    assert found == {"", "unet", "unet_context"}  # the style changes no text encoder


def test_profiles_and_swap_count_where_an_engine_depends_on_them(plan: Plan) -> None:
    sizes = plan.deployment.profiles.model_copy(update={"sizes": ((64, 64), (128, 64))})
    swap = plan.deployment.model_copy(update={"swap": "transformer"})
    larger = plan.deployment.model_copy(update={"profiles": sizes})
    for platform, expected in ((TENSORRT, True), (ONNX_RUNTIME, False)):
        first, second, third = (
            Plan(one, platform, plan.store).engine("unet").key for one in (plan.deployment, larger, swap)
        )
        assert (first != second) is expected
        assert (first != third) is expected
    assert Plan(larger, TENSORRT, plan.store).onnx("unet").key == plan.onnx("unet").key


def test_engines_are_verified_where_they_can_run(deployment: Any, tmp_path: Path) -> None:
    elsewhere = Platform("tensorrt-rtx", "sm89", "1", on_gpu=False)
    store = StageStore(tmp_path)
    assert Plan(deployment, elsewhere, store).verify("unet") is None
    assert isinstance(Plan(deployment, TENSORRT, store).verify("unet"), Stage)
    assert isinstance(Plan(deployment, ONNX_RUNTIME, store).verify("unet"), Stage)


def test_stages_of_a_deployment(plan: Plan) -> None:
    names = [stage.name for stage in plan.stages]
    expected = [f"{kind}/{network}" for network in NETWORKS for kind in ("onnx", "engine", "verify")]
    pristine = [f"pristine/{component}" for component in ("text_encoder", "text_encoder_2", "unet")]
    assert names == [*expected, *pristine]


def test_components_of_fused_loras(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for lora, components in (
        ("style", {"unet"}),
        ("style-kohya", {"unet"}),
        ("character", {"unet", "text_encoder", "text_encoder_2"}),
    ):
        loras = {lora: {"path": str(checkpoint.lora(lora))}}
        config = write_config(tmp_path / "a.yaml", checkpoint, loras=loras, fuse={lora: None})
        plan = Plan(load_deployment(config), ONNX_RUNTIME, StageStore(tmp_path))
        assert plan.fused_components == components


def test_loras_that_cannot_be_fused_are_named_before_any_work(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    config = write_config(tmp_path / "a.yaml", checkpoint, loras={"x": {"path": str(path)}}, fuse={"x": None})

    def stages() -> Any:
        return Plan(load_deployment(config), ONNX_RUNTIME, StageStore(tmp_path)).stages

    with pytest.raises(ConfigError, match=r"lora x: .*no such file"):
        stages()
    path.write_bytes(checkpoint.lora("style").read_bytes()[:-100])
    with pytest.raises(BuildError, match="fetch it again"):
        stages()
    state = load_file(checkpoint.lora("character"))
    save_file({name.replace("lora_te1_", "lora_te_"): values for name, values in state.items()}, path)
    with pytest.raises(LoraRefused, match=r"lora x: it is a Stable Diffusion 1\.5 or 2 LoRA"):
        stages()


def test_a_fused_lora_of_two_files_depends_on_both(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for path in (ROOT / "tests/data/loras/peft_adapter").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    loras = {"x": {"path": str(tmp_path / "adapter_model.safetensors")}}
    config = write_config(tmp_path / "a.yaml", checkpoint, loras=loras, fuse={"x": None})
    plan = Plan(load_deployment(config), ONNX_RUNTIME, StageStore(tmp_path))
    before = keys(plan)
    beside = tmp_path / "adapter_config.json"
    beside.write_text(beside.read_text().replace('"lora_alpha": 16', '"lora_alpha": 8'))
    kinds = {name.partition("/")[2] for name in changed(before, keys(plan))}
    assert kinds == {"", "unet", "unet_context"}


def test_ranges_join_profiles_and_leave_verification_its_passes(plan: Plan) -> None:
    sizes = ((256, 256), (192, 256))
    profiles = plan.deployment.profiles.model_copy(update={"sizes": sizes, "text_chunks": 2})
    static = Plan(plan.deployment.model_copy(update={"profiles": profiles}), plan.platform, plan.store)
    every = ("sizes", "guidance", "text_chunks")
    counts = {(): 8, ("guidance",): 4, ("guidance", "text_chunks"): 2, every: 1}
    for ranges, count in counts.items():
        asked = static.deployment.model_copy(
            update={"profiles": profiles.model_copy(update={"ranges": ranges})}
        )
        joined = Plan(asked, plan.platform, plan.store)
        assert len(joined.profiles("unet")) == count
        assert joined.passes("unet") == static.passes("unet")
        for one in joined.passes("unet"):
            sizes_of = {name: axis.optimum for name, axis in one.axes.items()}
            assert any(profile.admits(sizes_of) for profile in joined.profiles("unet"))
        assert (joined.engine("unet").key == static.engine("unet").key) == (not ranges)


def test_a_graph_depends_on_the_device_that_makes_it(plan: Plan) -> None:
    """An engine for another machine's card is compiled from a graph that the CPU made."""
    elsewhere = Plan(plan.deployment, replace(TENSORRT, on_gpu=False), plan.store)
    assert plan.onnx("unet").key != elsewhere.onnx("unet").key
    assert elsewhere.onnx("unet").key == Plan(plan.deployment, ONNX_RUNTIME, plan.store).onnx("unet").key


def test_the_text_encoders_depend_on_the_largest_clip_skip(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(plan)
    monkeypatch.setattr(planning, "LARGEST_CLIP_SKIP", 3)
    encoders = ("text_encoder", "text_encoder_2")
    assert changed(before, keys(plan)) == {f"{stage}/{name}" for stage in ALL for name in encoders}


def test_a_missing_lora_to_fuse_names_the_command_that_trains_it(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/training").mkdir(parents=True)
    (tmp_path / "configs/training/neon.yaml").write_text("name: neon\noutput: ../../trained/neon\n")
    loras = {"neon": {"path": "trained/neon/neon.safetensors"}}
    config = write_config(tmp_path / "a.yaml", checkpoint, loras=loras, fuse={"neon": None})
    plan = Plan(load_deployment(config), ONNX_RUNTIME, StageStore(tmp_path / "store"))
    with pytest.raises(ConfigError, match=r"neon\.safetensors: no such file; train it: intaglio train lora"):
        _ = plan.loras
