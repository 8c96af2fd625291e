"""safetensors files: right values of every type; whatever is no whole file is a ValueError that says why."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.loras.tensor_files import TensorFile, map_tensor_file, with_metadata

CASES = Path(__file__).parents[2] / "data/loras"


def packed(header: Any, values: bytes = b"") -> bytes:
    """A file of a header, as text or as what JSON is made from."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int64", "bool"],
)
def test_values_of_each_type(dtype: str) -> None:
    values = (10 * torch.randn(3, 5)).to(getattr(torch, dtype))
    file = TensorFile(safetensors.torch.save({"a": values, "b": values.t().contiguous()}))
    np.testing.assert_array_equal(file.read("a").astype(np.float64), values.double().numpy())
    np.testing.assert_array_equal(file.read("b").astype(np.float64), values.t().double().numpy())


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_value_of_fp8(dtype: str) -> None:
    """All 256 bytes, against torch."""
    values = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype))
    file = TensorFile(safetensors.torch.save({"a": values}))
    np.testing.assert_array_equal(file.read("a"), values.float().numpy())


def test_a_type_of_a_later_release_is_an_error_when_it_is_read() -> None:
    file = TensorFile(packed({"a": entry("F4", [8], [0, 4])}, b"\0" * 4))
    with pytest.raises(ValueError, match="a has values of type F4; the types that can be read are BOOL"):
        file.read("a")


def test_null_metadata_is_none() -> None:
    assert map_tensor_file(CASES / "nullmeta.safetensors").metadata == {}
    assert TensorFile(packed({"__metadata__": {"a": "b"}})).metadata == {"a": "b"}


def test_metadata_are_added() -> None:
    values = {"b": torch.randn(2, 3), "a": torch.randn(4)}
    data = safetensors.torch.save(values, {"kept": "1", "replaced": "2"})
    made = with_metadata(data, {"replaced": "3", "new": "ü"})
    assert made == with_metadata(data, {"new": "ü", "replaced": "3"})
    assert TensorFile(made).metadata == {"kept": "1", "replaced": "3", "new": "ü"}
    found = safetensors.torch.load(made)
    assert all(torch.equal(found[name], values[name]) for name in values)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"not a safetensors file \(0 bytes\)"),
    "a zip": (b"PK\x03\x04" + b"\0" * 500, "not a safetensors file"),
    "cut in the header": (packed({"a": entry()}, b"\0" * 4)[:30], "cut short: it has 30 bytes, and its"),
    "cut in the values": (packed({"a": entry()}, b"\0" * 3), "3 bytes of values, its header says 4"),
    "values too long": (packed({"a": entry()}, b"\0" * 5), "5 bytes of values, its header says 4"),
    "a header of no end": (struct.pack("<Q", 2**63) + b"{", "cut short"),
    "a header of 9 MiB": (packed(b"{" + b" " * 9 * 2**20 + b"}"), "the most that is read is 8388608"),
    "nonsense": (packed(b"{onsense"), "its header is damaged .not JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "its header is damaged .not UTF-8"),
    "UTF-16": (packed(json.dumps({}).encode("utf-16")), "not a safetensors file"),
    "nested too deeply": (packed(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "a number of 100,000 digits": (packed(b'{"a":' + b"9" * 100_000 + b"}"), "its header is damaged"),
    "a name twice": (packed(b'{"a": 1, "a": 1}'), "a name occurs twice"),
    "a list": (packed(b"[]"), "not a safetensors file"),
    "an entry that is a number": (packed({"a": 1}), "a should have dtype, shape and data_offsets"),
    "an entry without a shape": (packed({"a": {"dtype": "F32"}}), "a should have dtype"),
    "a dtype that is a list": (packed({"a": entry(dtype=[])}), "a has no valid dtype"),  # type: ignore[arg-type]
    "a negative size": (packed({"a": entry(shape=[-1])}), "a has no valid shape"),
    "a size of true": (packed({"a": entry(shape=[True])}, b"\0" * 4), "a has no valid shape"),
    "a huge size": (packed({"a": entry(shape=[2**70])}), "a has no valid shape"),
    "sizes whose product is huge": (packed({"a": entry(shape=[2**62] * 32)}), "4 bytes for shape"),
    "1000 axes": (packed({"a": entry(shape=[1] * 1000)}, b"\0" * 4), "a has no valid shape"),
    "offsets that are floats": (packed({"a": entry(offsets=[0.0, 4.0])}, b"\0" * 4), "no valid data_offsets"),
    "a negative offset": (packed({"a": entry(offsets=[-4, 0])}), "no valid data_offsets"),
    "a huge offset": (packed({"a": entry(offsets=[2**70, 2**70 + 4])}), "no valid data_offsets"),
    "three offsets": (packed({"a": entry(offsets=[0, 4, 8])}), "no valid data_offsets"),
    "an end before the begin": (packed({"a": entry(offsets=[4, 0])}, b"\0" * 4), "a ends before it begins"),
    "sizes that lie": (packed({"a": entry(shape=[9])}, b"\0" * 4), r"a has 4 bytes for shape \[9\]"),
    "a name of a million letters": (packed({"a" * 1_000_000: 1}), "should have dtype"),
    "overlap": (packed({"a": entry(), "b": entry()}, b"\0" * 4), "b overlaps another tensor"),
    "a gap": (packed({"a": entry(offsets=[4, 8])}, b"\0" * 8), "a leaves a gap before it"),
    "metadata that are a list": (packed({"__metadata__": []}), "__metadata__ is a list"),
    "metadata that are a number": (packed({"__metadata__": 1}), "__metadata__ is a int"),
    "metadata with a list": (packed({"__metadata__": {"a": []}}), "its metadata 'a' is a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str) -> None:
    data, reason = DAMAGED[name]
    with pytest.raises(ValueError, match=reason) as refused:
        TensorFile(data)
    assert type(refused.value) is ValueError
    assert len(str(refused.value)) < 1000


def test_a_damaged_file_on_disk(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        map_tensor_file(tmp_path / "empty.safetensors")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SIZES = st.lists(st.integers(-1, 5), max_size=4)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "I64", "F4"]) | JSON,
        "shape": SIZES | JSON,
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | JSON,
    }
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | JSON) | JSON


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(header=HEADERS, values=st.binary(max_size=48))
def test_any_header_is_read_or_refused(header: Any, values: bytes) -> None:
    read_or_refused(packed(header, values))


VALID = safetensors.torch.save({"a": torch.ones(2, 3), "b": torch.ones(4).half()}, {"format": "pt"})


@settings(max_examples=300, deadline=2000)
@given(
    cut=st.integers(0, len(VALID)),
    inserted=st.binary(max_size=6) | st.sampled_from([b"-", b"9", b".5", b"null", b"[", b'"a":1,']),
    skipped=st.integers(0, 8),
)
def test_any_change_of_a_file_is_read_or_refused(cut: int, inserted: bytes, skipped: int) -> None:
    read_or_refused(VALID[:cut] + inserted + VALID[cut + skipped :])


def read_or_refused(data: bytes) -> None:
    """What is read is what the safetensors library reads; all else is a ValueError.

    The library refuses a file with a type that it does not know; here only the tensor of that type is.
    """
    try:
        file = TensorFile(data)
    except ValueError:
        return
    if any(tensor.dtype == "F4" for tensor in file.tensors.values()):
        return
    try:
        read = safetensors.deserialize(data)
    except safetensors.SafetensorError:
        with pytest.raises(ValueError, match="has values of type"):
            _read_all(file)
        return
    theirs = {name: (found["shape"], bytes(found["data"])) for name, found in read}
    assert theirs.keys() == file.tensors.keys()
    for name, (shape, values) in theirs.items():
        assert file.read(name).shape == tuple(shape)
        if file.tensors[name].dtype in ("F32", "F16", "I64"):
            assert file.read(name).tobytes() == values


def _read_all(file: TensorFile) -> None:
    for name in file.tensors:
        file.read(name)
