"""Pixels -> encoded images with every request parameter inside."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final, get_args

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.models import DELIVERY, POSTPROCESS, SDXL, ResponseFormat
from intaglio.contract.ports import Tensors, read_tensors, string_tensor
from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.imaging.credentials import Sign
from intaglio.imaging.images import encode_image
from intaglio.request.limits import Workload, check_limits, check_size
from intaglio.request.texts import JSON_BYTES, read_choice, read_json
from intaglio.stages.timings import read_timings

__all__ = ["postprocess"]

_ESCAPED: Final = 6
"""Bytes that JSON takes at most for one byte of a prompt: \\u0001."""


def postprocess(tensors: Tensors, manifest: BuildManifest, *, sign: Sign | None = None) -> dict[str, Array]:
    """Every output of `models.POSTPROCESS`; image i's metadata are the request's with `"image_index": i`.

    `sign` signs each image; None where the deployment does not.

    Raises:
        InvalidRequest: pixels of another size than the build makes, too many of them, text that is not what
            the stages before write, or more metadata than a JPEG holds.
        Unavailable: an image cannot be signed now.
    """
    started = time.perf_counter()
    found = read_tensors(tensors, POSTPROCESS.inputs)
    images, height, width, _ = found["pixels"].shape
    check_size((width, height), manifest.profiles.sizes, field="pixels")
    work = Workload(width=width, height=height, images=images)
    check_limits(work, manifest.limits, images_field="pixels")
    metadata = _metadata(found, manifest.limits)
    output_format = read_choice(found, POSTPROCESS.input("output_format"))
    response_format = _taken_out(metadata)
    timings = read_timings(found)
    encoded = []
    for index, pixels in enumerate(found["pixels"]):
        own = metadata | {"image_index": index}
        data = encode_image(
            pixels,
            output_format=output_format,
            metadata=own,
            source_type=manifest.provenance.source_type,
        )
        encoded.append(data if sign is None else sign(data, output_format))
    if response_format == "b64":
        encoded = [base64.b64encode(data) for data in encoded]
    timings["postprocess"] = time.perf_counter() - started
    return {
        "image": string_tensor(*encoded),
        "metadata": string_tensor(json.dumps(metadata)),
        "timings": string_tensor(json.dumps(timings)),
    }


def _taken_out(metadata: dict[str, Any]) -> ResponseFormat:
    """How the images travel; `metadata` lacks all of `DELIVERY` afterwards, which says nothing of them."""
    port = SDXL.input("response_format")
    delivery = {name: metadata.pop(name, None) for name in DELIVERY}
    found = delivery[port.name]
    if found is None:
        return "bytes"
    if found not in get_args(ResponseFormat):
        raise InvalidRequest(f"metadata.{port.name}", f"{found!r} is unknown", allowed=port.allowed)
    return found  # type: ignore[no-any-return]


def _metadata(found: Tensors, limits: Limits) -> dict[str, Any]:
    """The request's parameters: both prompts, and JSON that the request had."""
    allowed = "a JSON object of a request's parameters"
    most = 2 * _ESCAPED * limits.prompt_bytes + 2 * JSON_BYTES
    value = read_json(found, "metadata", allowed=allowed, most=most)
    if not isinstance(value, dict):
        raise InvalidRequest("metadata", "something else", allowed=allowed)
    for name in ("prompt", "negative_prompt"):
        _check_prompt(value.get(name), f"metadata.{name}", most=limits.prompt_bytes)
    return value


def _check_prompt(text: Any, field: str, *, most: int) -> None:
    """Raise InvalidRequest where `text` is longer than `preprocess` allows. JSON may hold lone surrogates."""
    if isinstance(text, str) and (size := len(text.encode("utf-8", "surrogatepass"))) > most:
        raise InvalidRequest(field, f"{size} bytes", allowed=f"at most {most} bytes")
