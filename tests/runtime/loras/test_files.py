"""LoRA files: every key is accounted for, in every layout; what is not for this base is refused by name of
what it is.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from intaglio.errors import LoraRefused
from intaglio.loras.files import Component, LayerTable, LoraFile, lora_file_from_bytes
from intaglio.loras.layers import Layer
from intaglio.loras.tensor_files import TensorFile

UNET = {
    "down_blocks.0.resnets.0.conv1": (8, 4, 3, 3),
    "down_blocks.0.resnets.1.conv1": (8, 8, 3, 3),
    "down_blocks.0.downsamplers.0.conv": (8, 8, 3, 3),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k": (8, 12),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "mid_block.attentions.0.proj_in": (8, 8),
    "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj": (16, 8),
    "up_blocks.0.upsamplers.0.conv": (8, 8, 3, 3),
    "up_blocks.1.resnets.0.time_emb_proj": (8, 6),
    "conv_in": (4, 4, 3, 3),
}
TEXT = {"text_model.encoder.layers.0.self_attn.q_proj": (6, 6)}
TABLE: LayerTable = {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": TEXT}
TO_K = "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k"
STABILITY = {  # names of Stability's code, by hand
    "down_blocks.0.resnets.1.conv1": "input_blocks_2_0_in_layers_2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    TO_K: "input_blocks_5_1_transformer_blocks_0_attn2_to_k",
    "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
    "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj": "output_blocks_2_1_transformer_blocks_0_ff_net_0_proj",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
    "up_blocks.1.resnets.0.time_emb_proj": "output_blocks_3_0_emb_layers_1",
    "conv_in": "input_blocks_0_0",
}


def factors(shape: tuple[int, ...], rank: int = 2) -> tuple[Any, Any]:
    random = np.random.default_rng(sum(shape))
    down = random.standard_normal((rank, *shape[1:])).astype(np.float32)
    return down, random.standard_normal((shape[0], rank, *(1,) * (len(shape) - 2))).astype(np.float32)


def pair(stem: str, shape: tuple[int, ...], *, kohya: bool) -> dict[str, Any]:
    down, up = factors(shape)
    if kohya:
        return {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": np.array(1.0, np.float32),
        }
    return {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}


def read(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> LoraFile:
    return lora_file_from_bytes("x", save(tensors, metadata), table=TABLE)


@pytest.mark.parametrize("module", STABILITY)
def test_every_name_of_a_layer_means_that_layer(module: str) -> None:
    shape = UNET[module]
    names = [
        f"lora_unet_{STABILITY[module]}",
        f"lora_unet_{module.replace('.', '_')}",
        f"lycoris_{module.replace('.', '_')}",
    ]
    for stem in names:
        assert set(read(pair(stem, shape, kohya=True)).layers) == {("unet", module)}
    for stem in (f"unet.{module}", f"base_model.model.{module}", module):
        assert set(read(pair(stem, shape, kohya=False)).layers) == {("unet", module)}


@pytest.mark.parametrize(
    ("component", "prefix"), [("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2")]
)
def test_both_text_encoders(component: Component, prefix: str) -> None:
    (module,) = TEXT
    for tensors in (
        pair(f"{prefix}_{module.replace('.', '_')}", TEXT[module], kohya=True),
        pair(f"{component}.{module}", TEXT[module], kohya=False),
    ):
        assert set(read(tensors).layers) == {(component, module)}


def test_old_diffusers_names() -> None:
    down, up = factors((8, 8))
    stem = "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn1.processor.to_out_lora"
    found = read({f"{stem}.down.weight": down, f"{stem}.up.weight": up})
    assert set(found.layers) == {("unet", "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0")}


def test_facts() -> None:
    tensors = pair("lora_unet_input_blocks_0_0", UNET["conv_in"], kohya=True) | pair(
        f"lora_unet_{STABILITY[TO_K]}", UNET[TO_K], kohya=True
    )
    found = read(tensors)
    assert (found.format, found.ranks, found.targets) == ("kohya LoCon+LoRA", (2,), {"unet": 2})


def test_scale_of_alpha_and_of_the_adapters_configuration() -> None:
    tensors = pair(f"unet.{TO_K}", UNET[TO_K], kohya=False)
    (layer,) = read(tensors).layers.values()
    assert layer.strength == 1
    (layer,) = read(
        tensors, {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 8})}
    ).layers.values()
    assert layer.strength == 4
    configured = {"unet.r": 4, "unet.lora_alpha": 8, "unet.rank_pattern": {TO_K: 2}, "unet.use_rslora": True}
    (layer,) = read(tensors, {"lora_adapter_metadata": json.dumps(configured)}).layers.values()
    assert layer.strength == pytest.approx(8 / 2**0.5)
    (layer,) = read(pair(f"lora_unet_{STABILITY[TO_K]}", UNET[TO_K], kohya=True)).layers.values()
    assert layer.strength == 0.5


def test_half_precision_and_bfloat16_are_read() -> None:
    values = torch.randn(3, 5)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        import safetensors.torch  # noqa: PLC0415

        file = TensorFile(safetensors.torch.save({"a": values.to(dtype)}))
        np.testing.assert_array_equal(file.read("a").astype(np.float64), values.to(dtype).double().numpy())


# --- refusals --------------------------------------------------------------------------------------------------------

GOOD = pair(f"unet.{TO_K}", UNET[TO_K], kohya=False)
FLUX = "lora_unet_double_blocks_0_img_attn_qkv"
SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Flux, kohya": (pair(FLUX, (8, 8), kohya=True), "it is a Flux LoRA; this base is an SDXL"),
    "Flux, diffusers": (pair("transformer.single_transformer_blocks.0.attn.to_q", (8, 8), kohya=False), "a Flux LoRA"),
    "SD 1.5 by its text encoder": (pair("lora_te_text_model_layers_0_mlp_fc1", (8, 8), kohya=True), "a Stable Diffusion 1.5 or 2"),
    "SD 1.5 by its width": (pair(SD15, (320, 768), kohya=True), r"1.5 \(its cross-attention reads text of width 768, this base's of 12\)"),
    "full SDXL": (pair(f"unet.{TO_K}", (640, 2048), kohya=False), "full-size SDXL"),
    "SD3": (pair("transformer.transformer_blocks.0.attn.add_k_proj", (8, 8), kohya=False), "a Stable Diffusion 3 LoRA"),
    "unknown layer": (GOOD | pair("unet.down_blocks.7.attentions.0.to_q", (8, 8), kohya=False), "2 of 4 keys name no layer of this base"),
    "unknown part": (GOOD | {f"unet.{TO_K}.diff": np.zeros(3, np.float32)}, "1 of 3 keys name no layer"),
    "the same layer twice": (GOOD | pair(f"lora_unet_{STABILITY[TO_K]}", (8, 12), kohya=True), "gives one part of a layer twice"),
    "no tensors": ({}, "no tensors"),
    "half a pair": ({f"unet.{TO_K}.lora_A.weight": np.zeros((2, 12), np.float32)}, "has down, and lacks up"),
    "an alpha alone": ({f"unet.{TO_K}.alpha": np.array(1.0, np.float32)}, "an alpha only, and lacks down, up"),
    "another shape": (pair("unet.mid_block.attentions.0.proj_in", (16, 8), kohya=False), r"this base's layer is \[8, 8\]"),
    "ranks that differ": (GOOD | {f"unet.{TO_K}.lora_B.weight": np.zeros((8, 3), np.float32)}, r"this base's layer is \[8, 12\]"),
    "NaN": (GOOD | {f"unet.{TO_K}.lora_B.weight": np.full((8, 2), np.nan, np.float32)}, "not finite"),
    "infinite": (GOOD | {f"unet.{TO_K}.lora_B.weight": np.full((8, 2), np.inf, np.float32)}, "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_it_is(name: str) -> None:
    tensors, reason = REFUSED[name]
    with pytest.raises(LoraRefused, match=reason) as refused:
        read(tensors)
    assert str(refused.value).startswith("lora x: ")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({"ss_base_model_version": "flux1"}, "Flux"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "Stable Diffusion 1.5"),
        ({"ss_base_model_version": "sd3-large"}, "Stable Diffusion 3"),
    ],
)
def test_keys_and_shapes_count_more_than_metadata(metadata: dict[str, str], what: str) -> None:
    (warning,) = read(GOOD, metadata).warnings
    assert f"it is a {what} LoRA" in warning
    assert not read(GOOD, {"ss_base_model_version": "sdxl_base_v1-0"}).warnings
    unknown = pair("unet.nothing", (8, 8), kohya=False)
    with pytest.raises(LoraRefused, match=f"it is a {what} LoRA"):
        read(unknown, metadata)


def damaged(change: str) -> bytes:
    data = save(GOOD)
    match change:
        case "cut short":
            return data[:-5]
        case "cut in the header":
            return data[:40]
        case "empty":
            return b""
        case "not safetensors":
            return b"PK\x03\x04" + b"\0" * 500
        case "header of nonsense":
            return struct.pack("<Q", 8) + b"nonsense"
        case _:
            header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
            return struct.pack("<Q", len(header)) + header + b"\0" * 4


@pytest.mark.parametrize(
    "change",
    ["cut short", "cut in the header", "empty", "not safetensors", "header of nonsense", "sizes that lie"],
)
def test_damaged_files(change: str) -> None:
    with pytest.raises(LoraRefused, match=r"lora x: .*copy the file again"):
        lora_file_from_bytes("x", damaged(change), table=TABLE)


# --- maths, against peft ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_are_pefts(kind: str, dora: bool) -> None:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8) if kind == "linear" else torch.nn.Conv2d(6, 8, 3))
    before = model[0].weight.detach().numpy().copy()
    wrapped: Any = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["0"], use_dora=dora))  # type: ignore[arg-type]
    layer = wrapped.base_model.model[0]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    parts = {"down": layer.lora_A["default"].weight, "up": layer.lora_B["default"].weight}
    if dora:
        torch.nn.init.uniform_(layer.lora_magnitude_vector["default"].weight, 0.5, 2)
        parts["magnitude"] = layer.lora_magnitude_vector["default"].weight
    arrays: Any = {name: values.detach().numpy().astype(np.float32).copy() for name, values in parts.items()}
    merged = wrapped.merge_and_unload()[0].weight.detach().numpy()
    ours = Layer(arrays, alpha=3.0).applied(before, 1.0)
    np.testing.assert_allclose(ours, merged, atol=2e-6)
    assert not np.allclose(before, merged, atol=1e-2)


@pytest.mark.parametrize("method", ["LoHa", "LoKr"])
def test_loha_and_lokr_are_pefts(method: str) -> None:
    import peft  # noqa: PLC0415

    torch.manual_seed(0)
    config = getattr(peft, f"{method}Config")(r=2, alpha=3, target_modules=["0"], init_weights=False)
    wrapped: Any = peft.get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(48, 64)), config
    )  # large enough that LoKr factors  # type: ignore[arg-type]
    layer = wrapped.base_model.model[0]
    prefix = "hada" if method == "LoHa" else "lokr"
    arrays: Any = {
        name.removesuffix(".default"): values.detach().numpy()
        for name, values in layer.named_parameters()
        if name.startswith(prefix)
    }
    ours = Layer(arrays, alpha=3.0)
    assert ours.method == method
    np.testing.assert_allclose(
        ours.strength * ours.update(), layer.get_delta_weight("default").detach().numpy(), atol=1e-6
    )


def test_locon_with_a_core_is_the_papers_formula() -> None:
    random = np.random.default_rng(0)
    down, core, up = (
        random.standard_normal((2, 4, 1, 1)),
        random.standard_normal((2, 2, 3, 3)),
        random.standard_normal((8, 2, 1, 1)),
    )
    arrays: Any = {
        "down": down.astype(np.float32),
        "mid": core.astype(np.float32),
        "up": up.astype(np.float32),
    }
    expected = sum(
        up[:, a, 0, 0][:, None, None, None] * core[a, b] * down[b, :, 0, 0][None, :, None, None]
        for a in range(2)
        for b in range(2)
    )
    np.testing.assert_allclose(Layer(arrays).update(), expected, rtol=1e-5, atol=1e-6)
    Layer(arrays).check("x", "conv_in", shape=(8, 4, 3, 3))
