"""What is fuzzed: each target reads bytes of others, and raises nothing but the errors that it documents.

Whatever else leaves a target is a defect. So is a result that contradicts what the parser promises, which the
target asserts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import load_deployment
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.models import SDXL
from intaglio.contract.port_values import numpy_type
from intaglio.errors import ConfigError, InvalidRequest, LoraRefused
from intaglio.imaging.containers import ImageRefused
from intaglio.imaging.decoding import decode_rgb
from intaglio.imaging.generation_text import generation_text
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.palettes import in_palette, palette_of
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.loras.files import layer_table, lora_file_from_bytes
from intaglio.loras.tensor_files import TensorFile
from intaglio.request.read import read_request
from intaglio.request.request import ResolvedControl
from intaglio.request.texts import read_json_list
from intaglio.stages.preprocess.weights import parse_weights
from intaglio_client.repetition import parameters_from_metadata, repetition_of

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]
PIXELS: Final = 1 << 16
TEXTS: Final = tuple(port.name for port in SDXL.inputs if port.datatype == "TYPE_STRING")
NUMBERS: Final = tuple(port for port in SDXL.inputs if port.datatype != "TYPE_STRING")
SIDE: Final = 48


@functools.cache
def manifest() -> BuildManifest:
    """A build with a ControlNet, without files."""
    from ..runtime.serving.conftest import make_manifest  # noqa: PLC0415  (pytest, which a fuzzer does without)

    return make_manifest("f" * 64)


def text_tensor(data: bytes) -> Any:
    tensor = np.empty(1, object)
    tensor[0] = data
    return tensor


def request(data: bytes) -> None:
    """A request to `sdxl`. Lines `NAME=VALUE`: strings as they are, the bytes of numbers otherwise."""
    tensors = {"prompt": text_tensor(b"a person")}
    numbers = {port.name: numpy_type(port.datatype) for port in NUMBERS}
    for line in data.split(b"\n--\n"):
        name, _, value = line.partition(b"=")
        key = name.decode("ascii", "replace")
        if key in TEXTS:
            tensors[key] = text_tensor(value)
        elif key in numbers:
            kind = np.dtype(numbers[key])
            tensors[key] = np.frombuffer(value[: len(value) // kind.itemsize * kind.itemsize], kind)
    try:
        read = read_request(tensors, manifest())
    except InvalidRequest:
        return
    assert read.steps > 0
    json.dumps(read.seed)


def stage_json(data: bytes) -> None:
    """Controls and LoRAs as `diffuse` gets them, from whoever calls it."""
    kind, entry = (ResolvedControl, ResolvedLora)[data[:1] == b"l"], data[1:]
    try:
        read_json_list({"x": text_tensor(entry)}, "x", kind, most=8)  # type: ignore[type-var]
    except InvalidRequest:
        return


def prompt(data: bytes) -> None:
    """Tags of LoRAs and weights in brackets."""
    text = data.decode("utf-8", "replace")
    pieces = parse_weights(text)
    assert sum(len(piece.text) for piece in pieces) <= len(text)
    assert not any(np.isnan(piece.weight) for piece in pieces)
    try:
        found = split_lora_tags(text)
    except InvalidRequest:
        return
    again = split_lora_tags(found.untagged)
    assert not again.tags
    assert again.words == found.words


def pose(data: bytes) -> None:
    """A file of the pose library, and its drawing."""
    path = _folder() / "pose.json"
    path.write_bytes(data)
    try:
        keypoints = PoseLibrary(_folder()).load("pose")
    except ConfigError:
        return
    drawn = draw_pose(keypoints, width=SIDE, height=SIDE)
    assert drawn.shape == (SIDE, SIDE, 3)


def picture(data: bytes) -> None:
    """What clients send as a picture."""
    try:
        image = decode_rgb(data, formats=("PNG", "JPEG", "WEBP", "BMP"), most_pixels=PIXELS)
    except ImageRefused:
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= PIXELS


def metadata(data: bytes) -> None:
    """A picture that is to be repeated: PNG's text, XMP, EXIF's comment; and the webui's text of metadata."""
    with contextlib.suppress(InvalidRequest):
        repetition_of(data)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        assert isinstance(generation_text(found), str | None)
        with contextlib.suppress(InvalidRequest):
            parameters_from_metadata(found, ())


def tensors(data: bytes) -> None:
    """A safetensors file, as weights and as a LoRA of a base with two layers."""
    try:
        file = TensorFile(data)
    except ValueError:
        return
    for name in list(file.tensors)[:16]:
        try:
            values = file.read(name)
        except ValueError:
            continue
        assert values.shape == file.tensors[name].shape
    try:
        lora_file_from_bytes("fuzzed", data, table=_table())
    except LoraRefused:
        return


def palette(data: bytes) -> None:
    """A segmentation map."""
    if len(data) < 4:
        return
    width = 1 + data[0] % 8
    colours = np.frombuffer(data[1 : 1 + (len(data) - 1) // (3 * width) * 3 * width], np.uint8)
    pixels = colours.reshape(-1, width, 3)
    if not pixels.size:
        return
    named = palette_of(pixels)
    for wanted in ("ade20k", "cityscapes", "bdd100k"):
        try:
            made = in_palette(pixels, wanted, named=None, field="x")  # type: ignore[arg-type]
        except InvalidRequest:
            continue
        assert named is not None
        assert made.shape == pixels.shape


def deployment(data: bytes) -> None:
    """A deployment's YAML."""
    path = _folder() / "deployment.yaml"
    path.write_bytes(data)
    try:
        load_deployment(path)
    except (ConfigError, InvalidRequest):
        return


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="intaglio-fuzz-"))


@functools.cache
def _table() -> Any:
    stem = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    return layer_table({"unet": {stem: (8, 8), "conv_in.weight": (8, 4, 3, 3)}})


TARGETS: Final[Mapping[str, Target]] = {
    one.__name__: one
    for one in (request, stage_json, prompt, pose, picture, metadata, tensors, palette, deployment)
}
