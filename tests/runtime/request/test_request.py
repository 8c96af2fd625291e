"""A request's values and its metadata."""

from __future__ import annotations

from typing import Any

from intaglio.contract.models import SDXL
from intaglio.request.read import read_request
from intaglio.request.request import CONTROL_KEYS, LORA_KEYS, request_metadata


def test_metadata_has_every_input_of_the_table(tiny: Any, request_tensors: Any) -> None:
    request = read_request(
        request_tensors(prompt="a fox", seed=3, images=[b"png"], controls=CANNY), tiny.manifest
    )
    metadata = request_metadata(request, tiny.manifest, lora_hashes={"night": "0123456789ab"})
    names = [port.name for port in SDXL.inputs]
    assert list(metadata) == [*names, "lora_hashes", "added_words", "model", "intaglio"]
    assert metadata["lora_hashes"] == {"night": "0123456789ab"}
    assert (metadata["prompt"], metadata["seed"], metadata["negative_prompt"]) == ("a fox", 3, None)
    assert metadata["images"] == list(request.image_digests)
    assert metadata["controls"][0] == {
        "type": "canny",
        "image": 0,
        "weight": 1.0,
        "begin": 0.0,
        "end": 1.0,
        "preprocess": "none",
        "resize": "stretch",
    }


CANNY = '[{"type": "canny", "image": 0}]'


def test_keys_are_the_fields() -> None:
    sources = ("type", "image", "pose")
    making = ("preprocess", "resize", "palette")
    assert list(CONTROL_KEYS) == [*sources, "weight", "begin", "end", "every", *making]
    assert LORA_KEYS == ("id", "weight")
