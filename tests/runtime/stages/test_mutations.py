"""Any client may call any stage. Whatever changes in valid tensors, the answer is a result or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.contract.models import DIFFUSE, POSTPROCESS, PREPROCESS
from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.postprocess import postprocess
from intaglio.stages.preprocess.stage import Preprocess

Tensors = dict[str, Array]
Stage = Callable[[Mapping[str, Array]], Mapping[str, Array]]

FLOATS = st.sampled_from([0.0, -1.0, 1.0, 0.5, 49.0, 1e6, 3e38, -3e38, np.nan, np.inf, -np.inf, 1e-40])
INTEGERS = st.sampled_from([0, 1, -1, 2, 49407, 49408, 2**31 - 1, -(2**31), 2**62])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(["control", "weight", "begin", "end", "id", "sha256", "type", "pose", "image", "vae"])
JSON = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5),
    max_leaves=12,
)
TEXTS = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)
TEXTS |= st.sampled_from([b"[" * 70_000, b"[" * 900 + b"]" * 900, b"", b"{", b"null", b"1e999", b"\xff"])
DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"]


@st.composite
def changed(draw: st.DrawFn, array: Array) -> Array:
    """`array` with another value, shape or type."""
    if array.dtype == object:
        return draw(changed_text(array))
    axis = draw(st.integers(0, array.ndim - 1))
    size = array.shape[axis]
    kinds = {
        "value": lambda: draw(other_values(array)),
        "longer": lambda: np.repeat(array, draw(st.sampled_from([2, 3, 7])), axis=axis),
        "shorter": lambda: np.take(array, range(size // 2), axis=axis),
        "empty": lambda: array[..., :0],
        "more axes": lambda: array[None],
        "fewer axes": lambda: array.reshape(-1),
        "dtype": lambda: array.astype(draw(st.sampled_from(DTYPES))),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def other_values(draw: st.DrawFn, array: Array) -> Array:
    """One value, or all of them, are others."""
    copy = array.copy()
    value = draw(FLOATS if array.dtype.kind == "f" else INTEGERS)
    place = draw(st.integers(0, max(array.size - 1, 0)))
    places = slice(None) if draw(st.booleans()) else slice(place, place + 1)
    with np.errstate(all="ignore"):
        copy.reshape(-1)[places] = np.array(value).astype(array.dtype)
    return copy


@st.composite
def changed_text(draw: st.DrawFn, array: Array) -> Array:
    count = draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    found = np.empty(count, object)
    for index in range(count):
        found[index] = draw(TEXTS)
    return found


@st.composite
def mutated(draw: st.DrawFn, tensors: Mapping[str, Array], optional: tuple[str, ...]) -> Tensors:
    """`tensors` with one to three changes."""
    found = dict(tensors)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted({*found, *optional})))
        if name not in found:
            found[name] = draw(st.just(np.array([draw(INTEGERS) % 2**31], np.int32)) | changed_text(found))
        elif draw(st.integers(0, 9)) == 0:
            del found[name]
        else:
            found[name] = draw(changed(found[name]))
    return found


def check(stage: Stage, tensors: Tensors) -> None:
    refused = None
    try:
        outputs = stage(tensors)
    except InvalidRequest as error:
        refused = str(error)
    if refused is None:
        assert outputs
    else:
        assert "\n" not in refused
        assert len(refused) < 600


def optional_of(spec: Any) -> tuple[str, ...]:
    return tuple(port.name for port in spec.inputs if port.optional)


@pytest.fixture(scope="module")
def preprocess(tiny: Any) -> Iterator[Preprocess]:
    with Preprocess(tiny.manifest, tiny.folder) as stage:
        yield stage


@pytest.fixture(scope="module")
def diffuse(tiny: Any) -> Iterator[Diffuse]:
    with Diffuse(tiny.manifest, tiny.folder, backend=tiny.backend) as stage:
        yield stage


@pytest.fixture(scope="module")
def valid(preprocess: Preprocess, request_tensors: Any) -> Tensors:
    """What preprocess makes of a request with a control."""
    controls = json.dumps([{"type": "pose", "pose": "waving-01"}])
    tensors = request_tensors(
        prompt="a (red:1.2) fox", seed=1, steps=2, scheduler="euler_a", controls=controls
    )
    return dict(preprocess(tensors))


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SETTINGS
@given(data=st.data())
def test_preprocess(preprocess: Preprocess, request_tensors: Any, data: st.DataObject) -> None:
    tensors = request_tensors(
        prompt="a (red:1.2) fox",
        negative_prompt="bad",
        seed=1,
        steps=2,
        width=64,
        height=96,
        guidance_scale=3.0,
        guidance_begin=0.0,
        guidance_end=1.0,
        num_images=2,
        scheduler="euler_a",
        output_format="png",
        images=[b"\x89PNG\r\n\x1a\n" + b"\0" * 40],
        controls=json.dumps([{"type": "canny", "image": 0}]),
        loras="[]",
        trigger_words=True,
    )
    check(preprocess, data.draw(mutated(tensors, optional_of(PREPROCESS))))


@SETTINGS
@given(data=st.data())
def test_diffuse(diffuse: Diffuse, valid: Tensors, data: st.DataObject) -> None:
    tensors = {name: value for name, value in valid.items() if name not in ("output_format", "metadata")}
    check(diffuse, data.draw(mutated(tensors, optional_of(DIFFUSE))))


@SETTINGS
@given(data=st.data())
def test_postprocess(tiny: Any, valid: Tensors, data: st.DataObject) -> None:
    tensors = {name: valid[name] for name in ("output_format", "metadata", "timings")}
    tensors["pixels"] = np.zeros((2, 96, 64, 3), np.uint8)
    mutations = mutated(tensors, optional_of(POSTPROCESS))
    check(lambda changed: postprocess(changed, tiny.manifest), data.draw(mutations))
