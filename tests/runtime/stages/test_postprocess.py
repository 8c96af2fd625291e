"""Pixels become images that contain their metadata."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from intaglio.imaging.images import read_metadata
from intaglio.stages.postprocess import postprocess


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_metadata_travels_in_the_image(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    metadata = {"prompt": "a füchslein 狐", "seed": 0, "guidance_scale": 7.1}
    strings = {"metadata": json.dumps(metadata), "output_format": kind, "timings": json.dumps({"vae": 1.0})}
    tensors = {name: np.array([value.encode()], object) for name, value in strings.items()} | {
        "pixels": pixels
    }
    outputs = postprocess(tensors)
    assert set(json.loads(outputs["timings"][0])) == {"vae", "postprocess"}
    for index, data in enumerate(outputs["image"]):
        assert read_metadata(data) == metadata | {"image_index": index}
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == (kind.upper(), (24, 16))
        if kind == "png":
            np.testing.assert_array_equal(np.asarray(image), pixels[index])
