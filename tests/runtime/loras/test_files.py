"""LoRA files: every key is accounted for, in every layout; what is not for this base is refused by name of
what it is.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from intaglio.errors import LoraRefused
from intaglio.loras.adapters import lora_bytes
from intaglio.loras.files import Component, LayerTable, LoraFile, lora_file_from_bytes, named_components

CASES = Path(__file__).parents[2] / "data/loras"
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
FF = "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj"
STABILITY = {  # names of Stability's code, by hand
    "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    TO_K: "input_blocks.5.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
    FF: "output_blocks.2.1.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.resnets.0.time_emb_proj": "output_blocks.3.0.emb_layers.1",
    "conv_in": "input_blocks.0.0",
}
MINIATURE: LayerTable = {
    "unet": {
        f"{block}.transformer_blocks.0.{attention}.{name}": (64, 96 if attention == "attn2" else 64)
        for block in ("down_blocks.1.attentions.0", "down_blocks.1.attentions.1")
        for attention in ("attn1",)
        for name in ("to_q", "to_v")
    }
}
"""The layers of the miniature that the cases change."""


def underscored(name: str) -> str:
    return name.replace(".", "_")


def factors(shape: tuple[int, ...], rank: int = 2) -> tuple[Any, Any]:
    random = np.random.default_rng(sum(shape))
    down = random.standard_normal((rank, *shape[1:])).astype(np.float32)
    return down, random.standard_normal((shape[0], rank, *(1,) * (len(shape) - 2))).astype(np.float32)


def pair(stem: str, shape: tuple[int, ...], *, kohya: bool, rank: int = 2) -> dict[str, Any]:
    down, up = factors(shape, rank)
    if kohya:
        return {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": np.array(1.0, np.float32),
        }
    return {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}


def read(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> LoraFile:
    return lora_file_from_bytes("x", save(tensors, metadata), table=TABLE)


@pytest.mark.parametrize("layer", STABILITY)
def test_every_name_of_a_layer_means_that_layer(layer: str) -> None:
    shape = UNET[layer]
    names = [
        f"lora_unet_{underscored(STABILITY[layer])}",
        f"lora_unet_{underscored(layer)}",
        f"lycoris_{underscored(layer)}",
        f"diffusion_model.{STABILITY[layer]}",
    ]
    for stem in names:
        assert set(read(pair(stem, shape, kohya=True)).layers) == {("unet", layer)}
    for stem in (f"unet.{layer}", f"base_model.model.{layer}", layer, f"diffusion_model.{STABILITY[layer]}"):
        assert set(read(pair(stem, shape, kohya=False)).layers) == {("unet", layer)}


@pytest.mark.parametrize(
    ("component", "prefix"), [("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2")]
)
def test_both_text_encoders(component: Component, prefix: str) -> None:
    (layer,) = TEXT
    for tensors in (
        pair(f"{prefix}_{underscored(layer)}", TEXT[layer], kohya=True),
        pair(f"{component}.{layer}", TEXT[layer], kohya=False),
    ):
        assert set(read(tensors).layers) == {(component, layer)}


@pytest.mark.parametrize(
    ("stem", "component"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in", "unet"),
        ("unet.conv_in", "unet"),
        ("base_model.model.conv_in", "unet"),
        ("diffusion_model.time_embed.0", "unet"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder"),
        ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2"),
    ],
)
def test_components_are_known_without_the_base(stem: str, component: Component) -> None:
    assert named_components("x", [f"{stem}.alpha"]) == {component}
    assert named_components("x", [f"{stem}.alpha", "unet.conv_in.alpha"]) == {"unet", component}


def test_keys_of_another_model_name_no_component() -> None:
    keys = pair("lora_te_text_model_layers_0_mlp_fc1", (8, 8), kohya=True)
    with pytest.raises(LoraRefused, match=r"lora x: it is a Stable Diffusion 1.5 or 2 LoRA .*; this base"):
        named_components("x", keys)


def test_old_diffusers_names() -> None:
    down, up = factors((8, 8))
    stem = "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn1.processor.to_out_lora"
    found = read({f"{stem}.down.weight": down, f"{stem}.up.weight": up})
    assert set(found.layers) == {("unet", "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0")}


def test_facts() -> None:
    kernel = pair("lora_unet_input_blocks_0_0", UNET["conv_in"], kohya=True)
    matrix = pair(f"lora_unet_{underscored(STABILITY[TO_K])}", UNET[TO_K], kohya=True, rank=3)
    found = read(kernel | matrix)
    assert (found.format, found.ranks, found.targets) == ("kohya LoCon+LoRA", (2, 3), {"unet": 2})
    assert not found.warnings
    assert read(pair(f"diffusion_model.{STABILITY[TO_K]}", UNET[TO_K], kohya=True)).format == "ComfyUI LoRA"


# --- scales: alpha / rank of each layer ---------------------------------------------------------


def scales(data: bytes, table: LayerTable = MINIATURE) -> dict[str, float]:
    """Last word of each layer -> its scale."""
    file = lora_file_from_bytes("x", data, table=table)
    return {layer.rpartition(".")[2]: found.strength for (_, layer), found in file.layers.items()}


@pytest.mark.parametrize(
    ("case", "right"),
    [
        ("kohya_mixed_alpha", {"to_q": 0.5, "to_v": 1.0}),
        ("mixed_rank", {"to_q": 1.0, "to_v": 1.0}),
        ("partial_alpha", {"to_q": 0.25, "to_v": 1.0}),
        ("rp_suffix", {"to_q": 0.5, "to_v": 1.0}),
    ],
)
def test_each_layer_has_its_own_scale(case: str, right: dict[str, float]) -> None:
    assert scales((CASES / f"{case}.safetensors").read_bytes()) == right


def test_scale_of_alpha_and_of_the_adapters_configuration() -> None:
    tensors = pair(f"unet.{TO_K}", UNET[TO_K], kohya=False)

    def scale(**configuration: Any) -> float:
        values = {f"unet.{name}": value for name, value in configuration.items()}
        (layer,) = read(tensors, {"lora_adapter_metadata": json.dumps(values)}).layers.values()
        return layer.strength

    assert scale() == 1
    assert scale(r=2, lora_alpha=8) == 4
    rslora = scale(r=4, lora_alpha=8, rank_pattern={TO_K: 2}, use_rslora=True)
    assert rslora == pytest.approx(8 / 2**0.5)
    (layer,) = read(pair(f"lora_unet_{underscored(TO_K)}", UNET[TO_K], kohya=True)).layers.values()
    assert layer.strength == 0.5


def test_alpha_of_any_type() -> None:
    for alpha in (np.array([4.0], np.float16), np.array(4, np.int64), np.array(4.0)):
        (layer,) = read(
            pair(f"unet.{TO_K}", UNET[TO_K], kohya=False) | {f"unet.{TO_K}.alpha": alpha}
        ).layers.values()
        assert layer.strength == 2


def test_a_configuration_that_is_not_this_files() -> None:
    tensors = pair(f"unet.{TO_K}", UNET[TO_K], kohya=False)
    for values, reason in (
        ({"unet.r": 8, "unet.lora_alpha": 8}, "has rank 2, and peft's configuration says 8"),
        ({"unet.r": 2, "unet.lora_alpha": 8, "unet.use_dora": True}, "has no magnitude, and peft's"),
    ):
        with pytest.raises(LoraRefused, match=reason):
            read(tensors, {"lora_adapter_metadata": json.dumps(values)})


def test_pefts_file_without_its_configuration_is_named() -> None:
    (warning,) = read(pair(f"base_model.model.{TO_K}", UNET[TO_K], kohya=False)).warnings
    assert "no adapter_config.json is beside it" in warning
    path = CASES / "peft_adapter/adapter_model.safetensors"
    with pytest.raises(LoraRefused, match="keys name no layer"):
        lora_file_from_bytes("x", lora_bytes("x", path), table=TABLE)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_values_are_read_from_every_type(dtype: torch.dtype) -> None:
    tensors = {name: torch.from_numpy(values).to(dtype) for name, values in GOOD.items()}
    file = lora_file_from_bytes("x", safetensors.torch.save(tensors), table=TABLE)
    (layer,) = file.layers.values()
    np.testing.assert_array_equal(layer.parts["down"], tensors[f"unet.{TO_K}.lora_A.weight"].float().numpy())


# --- refusals -----------------------------------------------------------------------------------

GOOD = pair(f"unet.{TO_K}", UNET[TO_K], kohya=False)
FLUX = "lora_unet_double_blocks_0_img_attn_qkv"
SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
A, B, ALPHA = (f"unet.{TO_K}.{part}" for part in ("lora_A.weight", "lora_B.weight", "alpha"))


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Flux, kohya": (pair(FLUX, (8, 8), kohya=True), "it is a Flux LoRA; this base is an SDXL"),
    "Flux, diffusers": (
        pair("transformer.single_transformer_blocks.0.attn.to_q", (8, 8), kohya=False),
        "a Flux LoRA",
    ),
    "SD 1.5 by its text encoder": (
        pair("lora_te_text_model_layers_0_mlp_fc1", (8, 8), kohya=True),
        "a Stable Diffusion 1.5 or 2",
    ),
    "SD 1.5 by its width": (
        pair(SD15, (320, 768), kohya=True),
        r"1.5 \(its cross-attention reads text of width 768, this base's of 12\)",
    ),
    "full SDXL": (pair(f"unet.{TO_K}", (640, 2048), kohya=False), "full-size SDXL"),
    "SD3": (
        pair("transformer.transformer_blocks.0.attn.add_k_proj", (8, 8), kohya=False),
        "a Stable Diffusion 3 LoRA",
    ),
    "a transformer in ComfyUI's layout": (
        pair("diffusion_model.layers.0.attention.qkv", (8, 8), kohya=False),
        "a LoRA of a diffusion transformer",
    ),
    "SD 1.5 in ComfyUI's layout": (
        pair("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", (320, 768), kohya=False),
        "for Stable Diffusion 1.5",
    ),
    "unknown layer": (
        GOOD | pair("unet.down_blocks.7.attentions.0.to_q", (8, 8), kohya=False),
        "2 of 4 keys name no layer of this base",
    ),
    "unknown part": (GOOD | {f"unet.{TO_K}.diff": zeros(3)}, "1 of 3 keys name no layer"),
    "the same layer twice": (
        GOOD | pair(f"lora_unet_{underscored(TO_K)}", (8, 12), kohya=True),
        "gives one part of a layer twice",
    ),
    "no tensors": ({}, "no tensors"),
    "half a pair": ({A: zeros(2, 12)}, "has down, and lacks up"),
    "an alpha alone": ({ALPHA: np.array(1.0, np.float32)}, "an alpha only, and lacks down, up"),
    "an empty alpha": (GOOD | {ALPHA: zeros(0)}, r"alpha has shape \[0\]; it should be one number"),
    "two alphas": (GOOD | {ALPHA: zeros(2)}, r"alpha has shape \[2\]"),
    "an infinite alpha": (GOOD | {ALPHA: np.array(np.inf)}, "alpha has values that are not finite"),
    "another shape": (
        pair("unet.mid_block.attentions.0.proj_in", (16, 8), kohya=False),
        r"this base's layer is \[8, 8\]",
    ),
    "ranks that differ": (GOOD | {B: zeros(8, 3)}, r"this base's layer is \[8, 12\]"),
    "rank 0": ({A: zeros(0, 12), B: zeros(8, 0)}, r"has down \[0, 12\], up \[8, 0\]; this base's layer"),
    "a factor of one axis": ({A: zeros(12), B: zeros(8, 2)}, r"has down \[12\]"),
    "scalars": ({A: zeros(), B: zeros()}, r"has down \[\], up \[\]"),
    "three axes": ({A: zeros(2, 12, 1), B: zeros(8, 2)}, r"has down \[2, 12, 1\]"),
    "whole numbers": (GOOD | {B: np.zeros((8, 2), np.int8)}, "values of type I8; they should be one of F64"),
    "two methods": (GOOD | {f"unet.{TO_K}.hada_w1_a": zeros(8, 2)}, "is a LoRA, and has hada_w1_a too"),
    "NaN": (GOOD | {B: np.full((8, 2), np.nan, np.float32)}, "not finite"),
    "infinite": (GOOD | {B: np.full((8, 2), np.inf, np.float32)}, "not finite"),
    "beyond float32": (GOOD | {B: np.full((8, 2), 1e300)}, "not finite"),
    "a magnitude for neither axis": (
        GOOD | {f"unet.{TO_K}.dora_scale": zeros(12)},
        r"a dora_scale of \[12\]; it should have one value an output \(8\) or, as \[1, 12\], one value an",
    ),
}


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


def test_a_damaged_file() -> None:
    for data in (b"", save(GOOD)[:-5], b"PK\x03\x04" + b"\0" * 500):
        with pytest.raises(LoraRefused, match=r"lora x: .*copy the file again"):
            lora_file_from_bytes("x", data, table=TABLE)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1", "null", '{"unet.r": 2}', '{"unet.r": [], "unet.alpha": 1}']
)
def test_damaged_adapter_metadata(text: str) -> None:
    with pytest.raises(LoraRefused, match=r"its (lora_adapter_metadata is damaged|configuration has)"):
        read(GOOD, {"lora_adapter_metadata": text})


# --- whatever a file holds, the reader answers ---------------------------------------------------

STEMS = st.sampled_from([f"unet.{TO_K}", f"lora_unet_{underscored(TO_K)}", "unet.conv_in", "other"])
PARTS = st.sampled_from(
    ["lora_A.weight", "lora_B.weight", "lora_mid.weight", "alpha", "dora_scale", "lora_magnitude_vector"]
    + [f"hada_w{number}_{side}" for number in (1, 2) for side in "ab"]
    + ["lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "hada_t1"]
)
SHAPES = st.sampled_from(
    [(), (0,), (1,), (8,), (2, 12), (8, 2), (8, 12), (1, 12), (2, 4), (4, 3), (4, 4, 3, 3)]
)
CONFIGURATIONS = st.none() | st.text(max_size=5) | st.fixed_dictionaries(
    {"unet.r": st.sampled_from([2, 0, "2", None, True, 1e400]), "unet.lora_alpha": st.integers() | st.none()},
    optional={
        "unet.alpha_pattern": st.dictionaries(st.text("to_k.*+()|[]\\^$?d", max_size=12), st.floats()),
        "unet.rank_pattern": st.integers() | st.lists(st.integers()),
    },
).map(json.dumps)  # fmt: skip


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(
    tensors=st.dictionaries(st.tuples(STEMS, PARTS), SHAPES, max_size=6),
    dtype=st.sampled_from([np.float32, np.float16, np.int32]),
    configuration=CONFIGURATIONS,
)
def test_any_parts_are_read_or_refused(
    tensors: dict[tuple[str, str], tuple[int, ...]], dtype: Any, configuration: str | None
) -> None:
    values = {".".join(key): np.ones(shape, dtype) for key, shape in tensors.items()}
    metadata = None if configuration is None else {"lora_adapter_metadata": configuration}
    try:
        found = read(values, metadata)
    except LoraRefused:
        return
    for (component, layer), parts in found.layers.items():
        weights = np.ones(TABLE[component][layer], np.float32)
        assert parts.applied(weights, 1.0).shape == weights.shape
        assert parts.rank >= 1


@settings(max_examples=300, deadline=2000)
@given(position=st.integers(0, 400), replacement=st.binary(min_size=1, max_size=4))
def test_any_change_of_a_file_is_read_or_refused(position: int, replacement: bytes) -> None:
    data = save(GOOD, {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 8})})
    try:
        lora_file_from_bytes(
            "x", data[:position] + replacement + data[position + len(replacement) :], table=TABLE
        )
    except LoraRefused as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_large_header_takes_little() -> None:
    """8 MiB of brackets, of names and of numbers: refused in seconds."""
    size = 2**23 - 64
    for text in (b'{"a":[' + b"[]," * (size // 3), b'{"a":[' + b"1," * (size // 2), b'{"' + b"a" * size):
        with pytest.raises(LoraRefused, match="header is damaged"):
            lora_file_from_bytes("x", struct.pack("<Q", len(text)) + text, table=TABLE)
