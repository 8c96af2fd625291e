"""One file in Stability's layout: it loads as the folder does, or one line says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from intaglio.contract.sources import Source
from intaglio.errors import BuildError
from intaglio_export.weights.load import load_network
from intaglio_export.weights.repository_files import COMPONENTS
from intaglio_export.weights.sources import find_base
from intaglio_export.weights.text_encoders import with_published_names

from ...stability_layout import UNET, write_stability_file

MINIATURE = Path(__file__).parents[3] / "miniature/model"
CLASSES: dict[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    """The miniature's networks, by the libraries themselves, under published names."""
    loaded = {name: one.from_pretrained(MINIATURE / name) for name, one in CLASSES.items()}
    encoders = {name: with_published_names(loaded[name]) for name in ("text_encoder", "text_encoder_2")}
    return loaded | encoders


@pytest.fixture(scope="module")
def whole(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "miniature.safetensors"
    write_stability_file(path, networks)
    return path


def found(path: Path, *, replaced: tuple[str, ...] = ()) -> Any:
    return find_base([Source(file=path), Source(folder=MINIATURE)], replaced=replaced)


def changed(
    whole: Path,
    path: Path,
    *,
    add: dict[str, Any] | None = None,
    drop: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    tensors = {
        name: one for name, one in load_file(whole).items() if drop is None or not name.startswith(drop)
    }
    save_file(tensors | (add or {}), path, metadata=metadata)
    return path


@pytest.mark.parametrize("component", COMPONENTS)
def test_it_loads_tensor_for_tensor_as_the_folder(
    whole: Path, networks: dict[str, Any], component: str
) -> None:
    base = found(whole)
    loaded = load_network(component, base.weights(component), base=base).state_dict()
    expected = networks[component].state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], values) for name, values in expected.items())


def test_asymmetric_blocks_load_too(networks: dict[str, Any], tmp_path: Path) -> None:
    """SSD-1B: another number of transformer layers in each layer of a block, and none in the middle."""
    config = dict(networks["unet"].config) | {"mid_block_type": "UNetMidBlock2D"}
    count = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    config["transformer_layers_per_block"] = [[1 + index] * layers for index in range(count)]
    config["reverse_transformer_layers_per_block"] = [[2, *[1] * layers] for _ in range(count)]
    root = tmp_path / "base"
    root.mkdir()
    for path in MINIATURE.iterdir():
        if path.name != "unet":
            (root / path.name).symlink_to(path)
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(root / "unet")
    write_stability_file(tmp_path / "small.safetensors", networks | {"unet": unet})
    base = find_base([Source(file=tmp_path / "small.safetensors"), Source(folder=root)])
    loaded = load_network("unet", base.weights("unet"), base=base).state_dict()
    assert all(torch.equal(loaded[name], values) for name, values in unet.state_dict().items())
    with pytest.raises(BuildError, match=r"attends to the prompt in \d+ layers, .*distilled"):
        found(tmp_path / "small.safetensors")


def test_without_a_vae_it_needs_one_from_elsewhere(networks: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_stability_file(path, {name: one for name, one in networks.items() if name != "vae"})
    with pytest.raises(BuildError, match=r"it has no VAE; name one \(vae: "):
        found(path)
    base = found(path, replaced=("vae",))
    assert load_network("unet", base.weights("unet"), base=base)


ONE = torch.zeros(())
EMPTY = torch.zeros(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add": {"edm_mean": EMPTY, "edm_std": EMPTY}}, r"edm_mean says .*Playground"),
        ({"add": {"edm_vpred.sigma_max": ONE}}, "CosXL"),
        ({"metadata": {"modelspec.prediction_type": "x0"}}, "prediction_type: x0, which is not supported"),
        ({"drop": "conditioner.embedders.0."}, r"it has no text_encoder \("),
        ({"drop": "conditioner.embedders.1."}, "it has no text_encoder_2"),
        ({"drop": "first_stage_model."}, "it has no VAE"),
        ({"drop": f"{UNET}label_emb."}, "this is .*, not SDXL"),
        ({"drop": "model."}, "no SDXL checkpoint in Stability's layout|this is"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_in_one_line(
    whole: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = changed(whole, tmp_path / "a.safetensors", **change)
    with pytest.raises(BuildError, match=message) as refused:
        found(path)
    assert "\n" not in str(refused.value)


def test_a_files_own_word_on_its_prediction_stands_above_its_configurations(
    whole: Path, tmp_path: Path
) -> None:
    assert found(whole).scheduler["prediction_type"] == "epsilon"
    path = changed(whole, tmp_path / "a.safetensors", add={"v_pred": EMPTY, "ztsnr": EMPTY})
    scheduler = found(path).scheduler
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)


def shaped(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {UNET + name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


LABELS, FIRST = "label_emb__0__0__weight", "input_blocks__0__0__weight"
CONTEXT = "input_blocks__1__1__transformer_blocks__0__attn2__to_k__weight"

SDXL = {FIRST: (8, 4, 3, 3), CONTEXT: (8, 2048), LABELS: (8, 2816)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (shaped(**{FIRST: (8, 4, 3, 3), CONTEXT: (8, 768)}), "this is Stable Diffusion 1.x, not SDXL"),
        (shaped(**{FIRST: (8, 4, 3, 3), CONTEXT: (8, 1024)}), "this is Stable Diffusion 2.x, not SDXL"),
        (shaped(**{FIRST: (8, 4, 3, 3), CONTEXT: (8, 1280), LABELS: (8, 2560)}), "the SDXL refiner"),
        (shaped(**SDXL | {FIRST: (8, 9, 3, 3)}), "an inpainting UNet of 9 input"),
        (shaped(**SDXL | {FIRST: (8, 8, 3, 3)}), "an editing UNet of 8 input"),
        (shaped(**SDXL), "list a diffusers folder of the same"),
        ({"lora_unet_down_blocks_1.lora_down.weight": ONE}, "this is a LoRA"),
        ({"controlnet_cond_embedding.conv_in.weight": ONE}, "this is a ControlNet"),
        ({"model.diffusion_model.double_blocks.0.img_attn.proj.weight": ONE}, "a diffusion transformer"),
        ({"decoder.conv_in.weight": ONE}, "this is a VAE alone"),
        ({"down_blocks.0.resnets.0.conv1.weight": ONE}, "a network in diffusers' layout"),
        ({"anything": ONE}, "no SDXL checkpoint in Stability's layout"),
    ],
)  # fmt: skip
def test_other_files_are_named(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(BuildError, match=message):
        found(tmp_path / "a.safetensors")


def test_shapes_decide_against_metadata(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = {"modelspec.architecture": "stable-diffusion-v1", "modelspec.prediction_type": "epsilon"}
    found(changed(whole, tmp_path / "a.safetensors", metadata=metadata))
    assert "its metadata say stable-diffusion-v1, but its tensors are SDXL base's" in caplog.text


def test_a_file_that_lacks_a_weight_does_not_load(whole: Path, tmp_path: Path) -> None:
    path = changed(whole, tmp_path / "a.safetensors", drop=f"{UNET}out.2.bias")
    base = found(path)
    with pytest.raises(BuildError, match=r"does not load as unet: weights are missing from the file"):
        load_network("unet", base.weights("unet"), base=base)


def test_the_converter_loses_nothing(networks: dict[str, Any], whole: Path) -> None:
    sizes = sum(values.numel() for one in networks.values() for values in one.state_dict().values())
    assert sum(values.numel() for values in load_file(whole).values()) == sizes
