"""An image as it came."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image

from intaglio_client import Image
from intaglio_client.image import model_differences


def test_bytes_are_written_as_they_came(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), (10, 20, 30)).save(buffer, "PNG")
    image = Image(buffer.getvalue(), {"seed": 7})
    path = image.save(tmp_path / "out" / "fox.jpg")
    assert path.read_bytes() == buffer.getvalue(), "the suffix converts nothing"
    assert image.seed == 7
    assert image.pixels.shape == (2, 3, 3)
    np.testing.assert_array_equal(image.pixels[0, 0], (10, 20, 30))


def test_a_new_version_of_a_lora_is_not_another_build() -> None:
    original = {"model": {"build": "1", "loras": {"night": "a" * 64, "mara": "c" * 64}}}
    retrained = {"model": {"build": "1", "loras": {"night": "b" * 64, "mara": "c" * 64}}}
    assert model_differences(original, original) == []
    assert model_differences(original, retrained) == [
        f"lora night had version {'a' * 12} in the original, the server serves {'b' * 12}"
    ]
    rebuilt = {"model": {"build": "2", "loras": {"night": "b" * 64}}}
    assert model_differences(original, rebuilt) == [
        "the server runs another build than the one that made the original",
        "lora mara was applied to the original only",
        f"lora night had version {'a' * 12} in the original, the server serves {'b' * 12}",
    ]
    assert model_differences(rebuilt, original)[1] == "lora mara was applied to the new image only"
    assert len(model_differences(original, rebuilt, same_loras=False)) == 2
