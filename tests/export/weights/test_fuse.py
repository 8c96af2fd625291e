"""Fused weights are the formula's, those of a running server, and diffusers' own where it is right; files of
another model are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError
from intaglio.loras.files import named_components
from intaglio.loras.layer_names import stability_names
from intaglio.loras.merge import LoraMerge
from intaglio.loras.store import LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SWAPPED, SwapLayers
from intaglio.loras.tensor_files import map_tensor_file
from intaglio_export.weights.fuse import fuse_loras
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights
from intaglio_export.weights.text_encoders import with_published_names

from ... import lora_files
from ...checkpoint import Checkpoint
from ...runtime.loras.merging import open_merge
from ...runtime.loras.world import PlainEngine, write_pristine_of
from ...tiny import make_modules

CASES = Path(__file__).parents[2] / "data/loras"
TO_Q, TO_V = (f"down_blocks.1.attentions.0.transformer_blocks.0.attn1.{name}" for name in ("to_q", "to_v"))


@dataclass(frozen=True)
class Chosen:
    """A LoRA of a set, and its file."""

    lora: ResolvedLora
    path: Path


def chosen(path: Path, weight: float = 1.0) -> Chosen:
    lora = ResolvedLora(id=path.stem.replace("_", "-"), sha256="0" * 64, weight=weight)
    return Chosen(lora, path)


def fuse(networks: Any, *loras: Chosen, dtype: str = "float32") -> frozenset[str]:
    paths = {one.lora.id: one.path for one in loras}
    return fuse_loras(networks, [one.lora for one in loras], paths=paths, dtype=dtype)


def networks(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: load_network(name, Weights(checkpoint.base / name)) for name in SWAPPED}


def named_as_published(component: str, network: Any) -> Any:
    return network if component == "unet" else with_published_names(network)


# --- against diffusers, whose alphas are right where they are all alike --------------------------


@pytest.mark.parametrize("weights", [{"style": 1.0}, {"character": 0.6}, {"style": -0.5, "character": 1.3}])
def test_weights_equal_diffusers(checkpoint: Checkpoint, weights: dict[str, float]) -> None:
    ours, pristine = networks(checkpoint), networks(checkpoint)
    touched = fuse(ours, *(chosen(checkpoint.lora(name), weight) for name, weight in weights.items()))
    theirs = checkpoint.pipeline()
    for name in weights:
        theirs.load_lora_weights(str(checkpoint.lora(name)), adapter_name=name)
    theirs.set_adapters(list(weights), list(weights.values()))
    theirs.fuse_lora(adapter_names=list(weights))
    theirs.unload_lora_weights()
    assert touched == ({"unet"} if list(weights) == ["style"] else set(SWAPPED))
    for component in SWAPPED:
        expected = named_as_published(component, getattr(theirs, component)).state_dict()
        before = pristine[component].state_dict()
        found = ours[component].state_dict()
        assert found.keys() == expected.keys() == before.keys()
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)
        assert (component in touched) == any(not torch.equal(found[name], before[name]) for name in found)


# --- random files of all kinds: fused, swapped, and the formula ----------------------------------


class World:
    """A tiny network to fuse into, and an engine with the same weights to swap in."""

    def __init__(self, folder: Path, merge: LoraMerge) -> None:
        modules = make_modules()
        self.networks = {name: modules[name] for name in SWAPPED}
        self.folder = folder
        self.shapes = {
            name.removesuffix(".weight"): tuple(values.shape)
            for name, values in self.networks["unet"].named_parameters()
            if name.endswith(".weight") and values.ndim in (2, 4)
        }
        self.some = sorted(self.shapes)[::12]
        """So few that two files often change the same layer; matrices and kernels."""
        self.stability = stability_names(self.shapes)
        files: Any = {}
        for component in SWAPPED:
            path = folder / f"{component}.pristine"
            write_pristine_of(path, component, self.networks[component], dtype=torch.float32)
            files[component] = map_tensor_file(path)
        self.store = LoraStore(folder / "store")
        self.engines: list[Any] = []
        self.switches = []
        for where in (None, merge):
            engines: Any = {
                component: PlainEngine({name: file.read(name).copy() for name in file.tensors})
                for component, file in files.items()
            }
            self.engines.append(engines["unet"])
            layers = SwapLayers(files)
            self.switches.append(LoraSwitch(engines, layers, store=self.store, threads=1, merge=where))

    def pristine(self, layer: str) -> Any:
        return self.networks["unet"].get_parameter(f"{layer}.weight").double().numpy()

    def fused(self, loras: list[Chosen]) -> dict[str, Any]:
        # The files change no text encoder.
        copies = {**self.networks, "unet": copy.deepcopy(self.networks["unet"])}
        fuse(copies, *loras)
        return {layer: copies["unet"].get_parameter(f"{layer}.weight").numpy() for layer in self.shapes}

    def swapped(self, loras: list[Chosen], *, number: int) -> dict[str, Any]:
        asked = []
        for one in loras:
            sha256, _ = self.store.put(one.lora.id, one.path)
            asked.append(one.lora.model_copy(update={"sha256": sha256}))
        self.switches[number].ensure(tuple(asked))
        weights = self.engines[number].weights
        return {
            layer: weights[f"unet.{layer}.weight"]
            if f"unet.{layer}.weight" in weights
            else weights[f"unet.{layer}.weight.T"].T
            for layer in self.shapes
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    merge = open_merge(tmp_path_factory.mktemp("merge"), precision="fp32")
    return World(tmp_path_factory.mktemp("world"), merge)


KERNELS_ONLY = ("LoCon with a core", "LoHa with cores")


@st.composite
def files(draw: st.DrawFn, world: World) -> lora_files.RandomFile:
    made = lora_files.RandomFile(
        layout=draw(st.sampled_from(lora_files.LAYOUTS)),
        dtype=draw(st.sampled_from(lora_files.DTYPES)),
        seed=draw(st.integers(0, 10_000)),
    )
    for layer in draw(st.lists(st.sampled_from(world.some), min_size=1, max_size=6, unique=True)):
        shape = world.shapes[layer]
        methods = [method for method in lora_files.METHODS if len(shape) == 4 or method not in KERNELS_ONLY]
        magnitude = draw(st.sampled_from(lora_files.MAGNITUDES))
        made.add(
            lora_files.RandomLayer(
                layer=layer,
                shape=shape,
                method=draw(st.sampled_from(methods)),
                magnitude=magnitude,
                rank=draw(st.integers(1, 4)),
                alpha=draw(st.none() | st.sampled_from([0.5, 1.0, 3.0, 8.0])),
            ),
            stability=world.stability,
        )
    return made


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_files_fused_and_swapped_are_the_formula(world: World, data: st.DataObject) -> None:
    """To 1e-5 of the change's norm, which float32 can hold; two files on one layer add up."""
    loras, changes = [], []
    for number in range(data.draw(st.integers(1, 2), label="files")):
        file = data.draw(files(world), label="file")
        weight = data.draw(st.sampled_from([1.0, 0.7, -0.4, 1.5]), label="weight")
        loras.append(chosen(file.write(world.folder / f"random{number}.safetensors"), weight))
        changes.append((file.changes, weight))
    found = [world.fused(loras), world.swapped(loras, number=0), world.swapped(loras, number=1)]
    for layer in world.shapes:
        pristine = world.pristine(layer)
        touching = [(made[layer], weight) for made, weight in changes if layer in made]
        expected = sum((change(pristine, weight) for change, weight in touching), np.zeros_like(pristine))
        # Two changes may cancel; what they are made of is what rounding is relative to.
        norm = sum(float(np.linalg.norm(change(pristine, weight))) for change, weight in touching)
        for weights in found:
            difference = weights[layer].astype(np.float64) - pristine - expected
            assert np.linalg.norm(difference) <= 1e-5 * norm, layer


# --- files that were once fused wrongly -----------------------------------------------------------


def scaled(path: Path, layer: str, scale: float) -> Any:
    """scale x up x down of a layer of kohya's or diffusers' layout."""
    file = {name: values.double().numpy() for name, values in load_file(path).items()}
    stems = (f"unet.{layer}", f"base_model.model.{layer}", f"lora_unet_{layer.replace('.', '_')}")
    stem = next(one for one in stems if any(name.startswith(f"{one}.") for name in file))
    down, up = ("lora_down", "lora_up") if stem.startswith("lora_") else ("lora_A", "lora_B")
    return scale * file[f"{stem}.{up}.weight"] @ file[f"{stem}.{down}.weight"]


@pytest.mark.parametrize(
    ("case", "right"),
    [
        ("kohya_mixed_alpha", {TO_Q: 0.5, TO_V: 1.0}),
        ("mixed_rank", {TO_Q: 1.0, TO_V: 1.0}),
        ("partial_alpha", {TO_Q: 0.25, TO_V: 1.0}),
        ("rp_suffix", {TO_Q: 0.5, TO_V: 1.0}),
        ("peft_adapter/adapter_model", {TO_Q: 4.0, TO_V: 4.0}),
    ],
)
def test_each_layer_has_its_own_scale(checkpoint: Checkpoint, case: str, right: Mapping[str, float]) -> None:
    before, after = networks(checkpoint)["unet"], networks(checkpoint)
    path = CASES / f"{case}.safetensors"
    fuse(after, chosen(path))
    for layer, scale in right.items():
        name = f"{layer}.weight"
        change = (after["unet"].get_parameter(name) - before.get_parameter(name)).double().detach().numpy()
        expected = scaled(path, layer, scale)
        assert np.linalg.norm(change - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(("case", "axis"), [("dora_out", 1), ("dora_in", 0)])
def test_dora_has_the_norm_that_its_shape_says(checkpoint: Checkpoint, case: str, axis: int) -> None:
    before, after = networks(checkpoint)["unet"], networks(checkpoint)
    path = CASES / f"{case}.safetensors"
    fuse(after, chosen(path))
    file = {name.rpartition("to_q.")[2]: values.double().numpy() for name, values in load_file(path).items()}
    scale = file["alpha"] / len(file["lora_down.weight"])
    changed = before.get_parameter(f"{TO_Q}.weight").double().detach().numpy() + scaled(path, TO_Q, scale)
    expected = file["dora_scale"] * changed / np.linalg.norm(changed, axis=axis, keepdims=True)
    found = after["unet"].get_parameter(f"{TO_Q}.weight").detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_order_does_not_matter(checkpoint: Checkpoint) -> None:
    loras = [chosen(CASES / "dora_out.safetensors"), chosen(CASES / "dora_in.safetensors", 0.5)]
    found = []
    for order in (loras, loras[::-1]):
        made = networks(checkpoint)
        fuse(made, *order)
        found.append(made["unet"].get_parameter(f"{TO_Q}.weight"))
    assert torch.equal(*found)


# --- refusals -------------------------------------------------------------------------------------


def test_keys_of_another_model_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = load_file(checkpoint.lora("style"))
    state["unet.down_blocks.9.attentions.0.to_q.lora_A.weight"] = torch.zeros(4, 32)
    save_file(state, tmp_path / "foreign.safetensors")
    with pytest.raises(
        BuildError, match=r"lora foreign: 1 of \d+ keys name no layer of this base .*: unet.down_blocks.9"
    ):
        fuse(networks(checkpoint), chosen(tmp_path / "foreign.safetensors"))


def test_other_shapes_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = {
        name: torch.zeros(*(2 * size for size in values.shape))
        for name, values in load_file(checkpoint.lora("style")).items()
    }
    save_file(state, tmp_path / "wide.safetensors")
    with pytest.raises(BuildError, match="lora wide: "):
        fuse(networks(checkpoint), chosen(tmp_path / "wide.safetensors"))


@pytest.mark.parametrize(
    "keys", [["transformer.blocks.0.weight"], ["lora_unet_nonsense_to_q.lora_down.weight"]]
)
def test_what_is_no_sdxl_lora_is_an_error(checkpoint: Checkpoint, tmp_path: Path, keys: list[str]) -> None:
    save_file({key: torch.zeros(4, 4) for key in keys}, tmp_path / "x.safetensors")
    with pytest.raises(BuildError, match="lora x"):
        fuse(networks(checkpoint), chosen(tmp_path / "x.safetensors"))


def test_values_that_are_not_finite_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = load_file(checkpoint.lora("style"))
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(BuildError, match=r"lora nan: .* not finite"):
        fuse(networks(checkpoint), chosen(tmp_path / "nan.safetensors"))


def test_weights_that_the_precision_cannot_hold_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = {name: 2000 * values.float() for name, values in load_file(checkpoint.lora("style")).items()}
    save_file(state, tmp_path / "large.safetensors")
    lora = chosen(tmp_path / "large.safetensors")
    with pytest.raises(BuildError, match=r"loras large: unet\..* float16 cannot hold; use less weight"):
        fuse(networks(checkpoint), lora, dtype="float16")
    fuse(networks(checkpoint), lora)


def test_a_damaged_file_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes()[:200])
    with pytest.raises(BuildError, match=r"lora cut: .*cut short"):
        fuse(networks(checkpoint), chosen(path))
    with pytest.raises(BuildError, match="No such file"):
        fuse(networks(checkpoint), chosen(tmp_path / "gone.safetensors"))


def test_components_are_known_from_the_keys(checkpoint: Checkpoint) -> None:
    for name in ("style", "style-kohya", "character"):
        path = checkpoint.lora(name)
        named = named_components(name, map_tensor_file(path).tensors)
        assert named == fuse(networks(checkpoint), chosen(path))
