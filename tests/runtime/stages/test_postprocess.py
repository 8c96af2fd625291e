"""Pixels become images that contain their metadata; what no stage makes is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.provenance import Provenance
from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.imaging.images import read_metadata
from intaglio.imaging.xmp import DIGITAL_SOURCE_TYPE
from intaglio.stages.postprocess import postprocess


def tensors_of(pixels: Array, **texts: str | bytes) -> dict[str, Array]:
    usual = {"metadata": "{}", "output_format": "png", "timings": "{}"}
    tensors = {"pixels": pixels}
    for name, value in (usual | texts).items():
        tensors[name] = np.array([value.encode() if isinstance(value, str) else value], object)
    return tensors


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_metadata_travels_in_the_image(tiny: Any, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    metadata = {"prompt": "a füchslein 狐", "seed": 0, "guidance_scale": 7.1}
    timings = json.dumps({"vae": 1.0})
    tensors = tensors_of(pixels, metadata=json.dumps(metadata), output_format=kind, timings=timings)
    outputs = postprocess(tensors, tiny.manifest)
    assert set(json.loads(outputs["timings"][0])) == {"vae", "postprocess"}
    for index, data in enumerate(outputs["image"]):
        assert read_metadata(data) == metadata | {"image_index": index}
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == (kind.upper(), (64, 96))
        if kind == "png":
            np.testing.assert_array_equal(np.asarray(image), pixels[index])


def test_base64_is_the_same_images_as_text(tiny: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    bytes_, text = (
        tensors_of(pixels, metadata=json.dumps({"seed": 3, "response_format": kind}))
        for kind in ("bytes", "b64")
    )
    images, texts = (postprocess(tensors, tiny.manifest)["image"] for tensors in (bytes_, text))
    assert read_metadata(images[0]) == {"seed": 3, "image_index": 0}, "how it travels is not in the picture"
    assert [base64.b64decode(text, validate=True) for text in texts] == list(images)
    assert all(text.isascii() for text in texts)


def test_provenance_is_the_deployments(tiny: Any) -> None:
    """Whether pictures name a trained model as their source, and who signs them."""
    tensors = tensors_of(np.zeros((1, 96, 64, 3), np.uint8), output_format="webp")
    (stated,) = postprocess(tensors, tiny.manifest)["image"]
    silent = tiny.manifest.model_copy(update={"provenance": Provenance(source_type=False)})
    (unstated,) = postprocess(tensors, silent)["image"]
    assert (DIGITAL_SOURCE_TYPE.encode() in stated, DIGITAL_SOURCE_TYPE.encode() in unstated) == (True, False)
    signed = postprocess(tensors, tiny.manifest, sign=lambda data, kind: data + kind.encode())["image"]
    assert signed.tolist() == [stated + b"webp"]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 8192, 8192, 3), "pixels: 8192x8192 is not built; allowed: 64x96, 72x64"),
        ((1, 0, 0, 3), "pixels: 0x0 is not built"),
        ((0, 96, 64, 3), "pixels: 0 is out of range; allowed: 1 to 4"),
        ((5, 96, 64, 3), "pixels: 5 is out of range; allowed: 1 to 4"),
    ],
)
def test_pictures_are_those_a_request_may_ask_for(tiny: Any, shape: tuple[int, ...], says: str) -> None:
    pixels = np.broadcast_to(np.uint8(0), shape)  # no memory: sizes are checked before anything is made
    with pytest.raises(InvalidRequest, match=says):
        postprocess(tensors_of(pixels), tiny.manifest)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"metadata": "[]"}, "metadata: something else"),
        ({"metadata": "{"}, "metadata: not JSON"),
        ({"metadata": b"\xff"}, "metadata: byte 0 is not UTF-8"),
        ({"metadata": '{"seed": NaN}'}, r"metadata\.seed: nan is not a finite number"),
        ({"metadata": '{"a":' * 900 + "1" + "}" * 900}, "metadata: nested more than 32 levels"),
        ({"metadata": json.dumps({"prompt": "x" * 200_000})}, "metadata: 200014 bytes"),
        (
            {"metadata": json.dumps({"prompt": "\n" * 4097})},
            r"metadata\.prompt: 4097 bytes; allowed: at most 2000 bytes",
        ),
        (
            {"metadata": json.dumps({"negative_prompt": "\ud800" * 1366})},
            r"metadata\.negative_prompt: 4098 bytes; allowed: at most 2000 bytes",
        ),
        ({"output_format": "gif"}, "output_format: 'gif' is unknown; allowed: one of png, jpeg, webp"),
        ({"output_format": b"\xff"}, "output_format: byte 0 is not UTF-8"),
        (
            {"metadata": '{"response_format": "url"}'},
            r"metadata\.response_format: 'url' is unknown; allowed: one of bytes, b64",
        ),
        ({"metadata": '{"response_format": []}'}, r"metadata\.response_format: \[\] is unknown"),
        ({"timings": "[]"}, "timings: something else"),
        ({"timings": '{"vae": "long"}'}, "timings: something else"),
        ({"timings": '{"vae": 1e999}'}, r"timings\.vae: inf is not a finite number"),
    ],
)
def test_what_no_stage_writes_is_refused(tiny: Any, texts: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        postprocess(tensors_of(np.zeros((1, 96, 64, 3), np.uint8), **texts), tiny.manifest)


def test_metadata_that_a_jpeg_cannot_hold_is_refused(tiny: Any) -> None:
    pixels = np.zeros((1, 96, 64, 3), np.uint8)
    fits, too_long = (json.dumps({"note": "x" * size}) for size in (64_700, 65_600))
    assert postprocess(tensors_of(pixels, metadata=fits, output_format="jpeg"), tiny.manifest)
    with pytest.raises(
        InvalidRequest, match=r"output_format: 66\d\d\d bytes of metadata do not fit into a JPEG"
    ):
        postprocess(tensors_of(pixels, metadata=too_long, output_format="jpeg"), tiny.manifest)
    assert postprocess(tensors_of(pixels, metadata=too_long), tiny.manifest)
