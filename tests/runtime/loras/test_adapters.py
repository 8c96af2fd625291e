"""peft's configuration: its patterns as peft matches them, and the one beside a file as part of its bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from intaglio.errors import LoraRefused
from intaglio.loras.adapters import (
    AdapterConfiguration,
    adapter_configurations,
    lora_bytes,
    lora_digest,
    lora_files,
)
from intaglio.loras.tensor_files import TensorFile

CASE = Path(__file__).parents[2] / "data/loras/peft_adapter/adapter_model.safetensors"
LAYERS = [
    f"down_blocks.{block}.attentions.{number}.transformer_blocks.0.{layer}"
    for block in (1, 11)
    for number in (0, 1)
    for layer in ("attn1.to_q", "attn1.to_out.0", "attn2.to_q", "ff.net.0.proj")
]


def configuration(**values: Any) -> AdapterConfiguration:
    values = {"r": 4, "lora_alpha": 4, **values}
    text = json.dumps({f"unet.{name}": value for name, value in values.items()})
    return adapter_configurations({"lora_adapter_metadata": text})["unet"]


KEYS = st.sampled_from(
    [
        "to_q",
        "attn1.to_q",
        "_q",
        "o_q",
        "attn1",
        ".*attn1.*",
        "^to_q",
        "^down_blocks.1.*",
        "(to_q|proj)",
        "net.0.proj",
        r"down_blocks\.1\..*to_q",
        r"down_blocks.\d+.attentions.1.*",
        "attn.?.to_q",
        "[ab]ttn1.to_q",
        *LAYERS[:2],
    ]
)


@settings(max_examples=200, deadline=None)
@given(ranks=st.dictionaries(KEYS, st.integers(1, 64)), alphas=st.dictionaries(KEYS, st.floats(0.5, 64)))
def test_patterns_match_as_in_peft(ranks: dict[str, int], alphas: dict[str, float]) -> None:
    """The first key that matches counts; a key is a suffix and a regular expression."""
    ours = configuration(rank_pattern=ranks, alpha_pattern=alphas)
    for layer in LAYERS:
        rank = ranks.get(get_pattern_key(ranks.keys(), layer), 4)  # type: ignore[arg-type]
        alpha = alphas.get(get_pattern_key(alphas.keys(), layer), 4)  # type: ignore[arg-type]
        assert ours.scale_of(layer) == pytest.approx(alpha / rank)


def test_rank_stabilised_scale() -> None:
    assert configuration(use_rslora=True, lora_alpha=6).scale_of("x") == 3


def test_components_have_their_own() -> None:
    text = json.dumps({"unet.r": 4, "unet.lora_alpha": 8, "text_encoder.r": 2, "text_encoder.lora_alpha": 1})
    found = adapter_configurations({"lora_adapter_metadata": text})
    assert {name: each.scale_of("x") for name, each in found.items()} == {"unet": 2, "text_encoder": 0.5}
    assert adapter_configurations({}) == {}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"r": 0}, "has r = 0; it should be a number"),
        ({"r": 2.5}, "has r = 2.5; it should be a whole number"),
        ({"r": "4"}, "has r = 4"),
        ({"lora_alpha": None}, "has lora_alpha = None"),
        ({"lora_alpha": True}, "has lora_alpha = True"),
        ({"lora_alpha": float("nan")}, "has lora_alpha = nan"),
        ({"alpha_pattern": {"to_q": float("inf")}}, "has to_q = inf"),
        ({"alpha_pattern": []}, None),
        ({"alpha_pattern": [1]}, "alpha_pattern is no JSON object"),
        ({"rank_pattern": {"to_q": 0}}, "has to_q = 0"),
        ({"rank_pattern": {"(": 1}}, "missing"),
        ({"rank_pattern": {"(a+)+b": 1}}, "of a kind that is not supported"),
        ({"rank_pattern": {"a{100}": 1}}, "of a kind that is not supported"),
        ({"rank_pattern": {f"{letter}.*.*": 1 for letter in "abcdef"}}, "takes too long to match"),
        ({"rank_pattern": {".*.*.*.*b": 1}}, "takes too long to match"),
        ({"rank_pattern": {"(a|a)" * 40: 1}}, "takes too long to match"),
        ({"peft_type": "OFT"}, "is for peft's 'OFT'; supported are LORA, LOHA, LOKR"),
        ({"lora_bias": True}, "has lora_bias, which is not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "trained on a base changed by 'pissa_niter_4'"),
        ({"init_lora_weights": "gaussian"}, None),
    ],
)
def test_what_is_damaged_or_not_supported(values: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert configuration(**values).scale_of("x") == 1
        return
    with pytest.raises(ValueError, match=reason):
        configuration(**values)


def test_patterns_of_a_hostile_file_take_little_time() -> None:
    started = time.perf_counter()
    hostile = configuration(alpha_pattern={f"_*_*{letter}": 1 for letter in "wxyz"})
    plain = configuration(alpha_pattern={f"layer{number}.to_q": 1 for number in range(1000)})
    for number in range(1000):
        hostile.scale_of("_" * 90 + str(number))
        plain.scale_of("down." * 20 + "to_q")
    assert time.perf_counter() - started < 20


# --- beside the file ------------------------------------------------------------------------------


def test_what_peft_wrote_beside_a_file_is_in_its_bytes() -> None:
    data = lora_bytes("x", CASE)
    assert data == lora_bytes("x", CASE)
    found = adapter_configurations(TensorFile(data).metadata)
    assert found["unet"].scale_of("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q") == 4
    ours, theirs = safetensors.torch.load(data), safetensors.torch.load_file(CASE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lora_files(CASE) == (CASE, CASE.with_name("adapter_config.json"))


def test_it_counts_for_files_of_peft_only(tmp_path: Path) -> None:
    """Whatever they are named; a file that says all itself, and one of kohya, stay as they are."""
    for path in CASE.parent.iterdir():
        shutil.copy(path, tmp_path)
    renamed = (tmp_path / CASE.name).rename(tmp_path / "mine.safetensors")
    assert lora_bytes("x", renamed) == lora_bytes("x", CASE)
    (tmp_path / "said.safetensors").write_bytes(lora_bytes("x", CASE))
    other = CASE.parents[1] / "kohya_mixed_alpha.safetensors"
    shutil.copy(other, tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for name in ("said.safetensors", other.name, "damaged.safetensors"):
        assert lora_bytes("x", tmp_path / name) == (tmp_path / name).read_bytes()
        assert lora_files(tmp_path / name) == (tmp_path / name,)
        assert lora_digest("x", tmp_path / name) is None


def test_another_configuration_is_another_file(tmp_path: Path) -> None:
    for path in CASE.parent.iterdir():
        shutil.copy(path, tmp_path)
    before = lora_digest("x", tmp_path / CASE.name)
    assert before == hashlib.sha256(lora_bytes("x", tmp_path / CASE.name)).hexdigest()
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 8}))
    assert lora_digest("x", tmp_path / CASE.name) not in (None, before)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 5_000_000])
def test_a_damaged_configuration(tmp_path: Path, text: bytes) -> None:
    shutil.copy(CASE, tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(text)
    with pytest.raises(LoraRefused, match=r"lora x: .*adapter_(config|model)"):
        lora_bytes("x", tmp_path / CASE.name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LoraRefused, match="No such file"):
        lora_bytes("x", tmp_path / "none.safetensors")
