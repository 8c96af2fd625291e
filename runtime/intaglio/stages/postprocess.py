"""Pixels -> encoded images with every request parameter inside."""

from __future__ import annotations

import json
import time
from typing import Any

from intaglio.contract.models import POSTPROCESS
from intaglio.contract.ports import Tensors, read_tensors, string_tensor
from intaglio.engines.interface import Array
from intaglio.imaging.images import encode_image

__all__ = ["postprocess"]


def postprocess(tensors: Tensors) -> dict[str, Array]:
    """Every output of `models.POSTPROCESS`; image i's metadata are the request's with `"image_index": i`."""
    started = time.perf_counter()
    found = read_tensors(tensors, POSTPROCESS.inputs)
    metadata: dict[str, Any] = json.loads(found["metadata"][0])
    output_format = bytes(found["output_format"][0]).decode()
    images = [
        encode_image(pixels, output_format=output_format, metadata=metadata | {"image_index": index})
        for index, pixels in enumerate(found["pixels"])
    ]
    timings: dict[str, float] = json.loads(found["timings"][0]) if "timings" in found else {}
    timings["postprocess"] = time.perf_counter() - started
    return {
        "image": string_tensor(*images),
        "metadata": string_tensor(json.dumps(metadata)),
        "timings": string_tensor(json.dumps(timings)),
    }
