"""Text and JSON that nobody vouches for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.contract.models import POSTPROCESS
from intaglio.errors import InvalidRequest
from intaglio.request.request import ResolvedControl
from intaglio.request.texts import JSON_BYTES, read_choice, read_json, read_json_list


def tensors(value: Any, *, name: str = "controls") -> dict[str, Any]:
    tensor = np.empty(1, object)
    tensor[0] = value
    return {name: tensor}


GOOD = {"control": "pose", "weight": 1.0, "begin": 0.0, "end": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "controls: not JSON"),
        (b"\xff", "controls: byte 0 is not UTF-8"),
        (b"{}", "controls: is {}; allowed: a list"),
        (b"[1]", r"controls\[0\]: "),
        (b"[" * 100_000, "controls: 100000 bytes; allowed: at most 65536"),
        (b"[" * 5000 + b"]" * 5000, "controls: "),
        (b"[" * 40 + b"]" * 40, "controls: nested more than 32 levels deep"),
        (
            json.dumps([GOOD | {"weight": float("nan")}]).encode(),
            r"controls\[0\]\.\w+: (nan|inf) is not a finite number",
        ),
        (
            json.dumps([GOOD]).replace("1.0", "1e999").encode(),
            r"controls\[0\]\.\w+: (nan|inf) is not a finite number",
        ),
        (json.dumps([GOOD | {"extra": 1}]).encode(), r"controls\[0\]\.extra: "),
        (json.dumps([GOOD | {"weight": 3}]).encode(), r"controls\[0\]\.weight: "),
        (json.dumps([GOOD | {"begin": -0.5}]).encode(), r"controls\[0\]\.begin: "),
        (json.dumps([GOOD | {"end": "1"}]).encode(), r"controls\[0\]\.end: "),
        (json.dumps([GOOD | {"weight": int("9" * 400)}]).encode(), r"controls\[0\]\.weight: "),
        (b"[" + b"9" * 6000 + b"]", "controls: not JSON"),
        (b"[" + b"5," * 32_000 + b"5]", "controls: 32001 is out of range; allowed: 0 to 4"),
        (17, "controls: int in a tensor of strings"),
    ],
)
def test_what_is_no_list_of_entries_is_refused_in_one_line(text: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        read_json_list(tensors(text), "controls", ResolvedControl, most=4)
    assert "\n" not in str(caught.value)


def test_what_is_absent_or_blank_is_an_empty_list() -> None:
    assert read_json_list({}, "controls", ResolvedControl, most=4) == []
    assert read_json_list(tensors(b" "), "controls", ResolvedControl, most=4) == []
    assert (
        read_json_list(tensors(json.dumps([GOOD])), "controls", ResolvedControl, most=4)[0].control == "pose"
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        value = read_json(tensors(data), "controls", allowed="JSON")
    except InvalidRequest:
        return
    json.dumps(value, allow_nan=False)


def test_longer_json_where_the_caller_allows_it() -> None:
    text = json.dumps(["x" * JSON_BYTES])
    with pytest.raises(InvalidRequest):
        read_json(tensors(text), "controls", allowed="JSON")
    assert read_json(tensors(text), "controls", allowed="JSON", most=2 * JSON_BYTES)


@pytest.mark.parametrize("length", range(60, 70))
def test_a_choice_that_is_too_long_is_utf8_wherever_it_is_cut(length: int) -> None:
    text = "x" * length + "狐"
    port = POSTPROCESS.input("output_format")
    with pytest.raises(InvalidRequest, match=r"output_format: 'xx.* is unknown; allowed: one of png"):
        read_choice(tensors(text.encode(), name="output_format"), port)
    says = f"byte {length} is not UTF-8" if length < 63 else "is unknown"
    with pytest.raises(InvalidRequest, match=says):
        read_choice(tensors(text.encode()[: length + 1] + b"x", name="output_format"), port)


@pytest.mark.parametrize("text", [b"gif", b"png" + b"\0" * 100, b"\xff", 3])
def test_choices(text: Any) -> None:
    port = POSTPROCESS.input("output_format")
    assert read_choice(tensors(b"png", name="output_format"), port) == "png"
    with pytest.raises(InvalidRequest, match="output_format"):
        read_choice(tensors(text, name="output_format"), port)
