"""Sends requests that must be refused, to every model over gRPC and HTTP, one after another.

    python tests/serving/hostile.py GRPC_URL HTTP_URL COUNT SECONDS [PICTURE ...]

It sends every kind of request once, and goes on from the first until it has sent COUNT. After SECONDS it
sends none.

Prints one JSON object: how many were sent, seconds, and every answer but INVALID_ARGUMENT in one line.
It is a program of its own, so that it does not share an interpreter with whoever is to be disturbed.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
Asked = tuple[str, str, Callable[[], str | None]]
"""What it is, the model, and a call that gives the complaint about its answer (None: rightly refused)."""

GARBAGE = (
    b"{",
    b"[",
    b"[" * 50_000,
    b"[" * 900 + b"]" * 900,
    b"{}x",
    b"\xff\xfe",
    b"[1, 2]",
    b"[" + b"5," * 32_000 + b"5]",
    b'[{"a": NaN}]',
    b"1e999",
)
SEVERAL = 40


@dataclass
class Sender:
    """Both connections, and what was answered wrongly."""

    grpc_url: str
    http_url: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = triton.InferenceServerClient(self.grpc_url)

    def infer(self, model: str, tensors: Mapping[str, Array], wanted: list[str] | None = None) -> Any:
        inputs = []
        for name, array in tensors.items():
            given = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype) or "BYTES")
            given.set_data_from_numpy(array)
            inputs.append(given)
        outputs = [triton.InferRequestedOutput(name) for name in wanted] if wanted else None
        return self.client.infer(model, inputs, outputs=outputs, client_timeout=60)

    def over_grpc(self, model: str, tensors: Mapping[str, Array]) -> str | None:
        try:
            self.infer(model, tensors)
        except InferenceServerException as error:
            return complaint(str(error.status()).removeprefix("StatusCode."), error.message() or "")
        return "was answered"

    def over_http(self, model: str, body: bytes, *, parsed: bool) -> str | None:
        """`parsed` says whether `body` is a request. Triton's own parser answers others with status 500."""
        request = urllib.request.Request(f"http://{self.http_url}/v2/models/{model}/infer", data=body)
        allowed = (400,) if parsed else (400, 500)
        try:
            with urllib.request.urlopen(request, timeout=60):
                return "was answered"
        except urllib.error.HTTPError as error:
            status = "INVALID_ARGUMENT" if error.code in allowed else f"HTTP {error.code}"
            return complaint(status, json.loads(error.read()).get("error", ""))
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}"


def complaint(status: str, message: str) -> str | None:
    if status != "INVALID_ARGUMENT":
        return f"{status}: {message[:300]}"
    if not message or "\n" in message.strip():
        return f"not one line: {message[:300]!r}"
    return None


def text(*values: bytes | str) -> Array:
    found = np.empty(len(values), object)
    found[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return found


def number(value: Any, dtype: Any = np.int32) -> Array:
    return np.array([value]).astype(dtype)


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((width, height), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def request_changes(pictures: list[bytes]) -> Iterator[tuple[str, Tensors]]:
    """What is wrong with a request to `sdxl` or `preprocess`."""
    for name, values in {
        "steps": (-1, 0, 151, 2000, 2**31 - 1),
        "num_images": (-5, 0, 5, 64),
        "clip_skip": (-1, 12, 2**31 - 1),
        "control_every": (-1, 0, 2, 151),
        "width": (-8, 7, 8, 4096),
        "height": (0, 100_000),
    }.items():
        for value in values:
            yield f"{name} {value}", {name: number(value)}
    for value in (np.nan, np.inf, -1.0, 51.0):
        yield f"guidance {value}", {"guidance_scale": number(value, np.float32)}
        yield f"window {value}", {"guidance_begin": number(value, np.float32)}
        yield f"rescale {value}", {"guidance_rescale": number(value, np.float32)}
    yield "negative seed", {"seed": number(-1, np.int64)}
    for value in (b"\xff\xfe", b" ", b"x" * 100_000):
        yield "prompt", {"prompt": text(value)}
    for name in ("scheduler", "output_format"):
        yield name, {name: text(b"\xff" * 1000)}
    for garbage in GARBAGE:
        yield "controls garbage", {"controls": text(garbage)}
        yield "loras garbage", {"loras": text(garbage)}
    control = {"type": "pose", "pose": "dancing-01"}
    yield "40 controls", {"controls": text(json.dumps([control] * SEVERAL))}
    yield "no such pose", {"controls": text(json.dumps([{"type": "pose", "pose": "../../etc/passwd"}]))}
    yield "no such lora", {"loras": text(json.dumps([{"id": "../../x"}] * SEVERAL))}
    one_image = text(json.dumps([{"type": "canny", "image": 0, "preprocess": "canny"}]))
    good = png(64, 64)
    header = good[:16] + (60_000).to_bytes(4, "big") * 2 + good[24:]
    for what in (b"", b"\0" * 5000, good[: len(good) // 2], header, b"RIFF" + b"\xff" * 60, *pictures):
        yield "broken picture", {"images": text(what), "controls": one_image}
    yield "many pictures", {"images": text(*[good] * 65)}
    yield "large picture", {"images": text(b"\x89PNG" + bytes(33 << 20)), "controls": one_image}
    yield "unknown input", {"negative": text("x")}
    yield "wrong type", {"steps": number(2, np.float32)}
    yield "wrong shape", {"steps": np.array([2, 2], np.int32)}
    yield "wrong rank", {"steps": np.array([[2]], np.int32)}
    for extra in range(3):
        yield "too many inputs", {f"extra{number_}": text("x") for number_ in range(50 + extra)}


def diffuse_changes(valid: Tensors) -> Iterator[tuple[str, Tensors]]:
    """What is wrong with the tensors that `diffuse` gets."""
    steps = 2000
    yield (
        "2000 steps",
        {
            "timesteps": np.ones(steps, np.float32),
            "input_scale": np.ones(steps, np.float32),
            "coefficients": np.zeros((steps, *valid["coefficients"].shape[1:]), np.float32),
        },
    )
    yield "64 images", {"state": np.repeat(valid["state"], 64, axis=1)}
    yield "no images", {"state": valid["state"][:, :0]}
    entry = {"control": "pose", "weight": 1.0, "begin": 0.0, "end": 1.0}
    yield "40 controls", {"controls": text(json.dumps([entry] * SEVERAL))}
    for change in (
        {"weight": -1},
        {"begin": 0.9, "end": 0.1},
        {"begin": -1},
        {"every": 0},
        {"every": 2**40},
        {"control": "nobody"},
        {"more": 1},
    ):
        maps = np.zeros((1, 192, 256, 3), np.uint8)
        yield f"control {change}", {"controls": text(json.dumps([entry | change])), "control_maps": maps}
    yield "map missing", {"controls": text(json.dumps([entry]))}
    for value in (-1, 49_408, 2**62):
        ids = valid["token_ids"].copy()
        ids[0, 0, 0, 3] = value
        yield f"token {value}", {"token_ids": ids}
    for name in (
        "state",
        "noise",
        "coefficients",
        "time_ids",
        "timesteps",
        "token_weights",
        "guidance_scale",
        "guidance_rescale",
    ):
        for value in (np.nan, np.inf):
            changed = valid[name].copy()
            changed.flat[0] = value
            yield f"{name} {value}", {name: changed}
        yield f"{name} as doubles", {name: valid[name].astype(np.float64)}
        yield f"{name} flat", {name: valid[name].reshape(-1)[None, None]}
    unknown = [{"id": "mara", "sha256": "0" * 64, "weight": 1.0}]
    yield "unknown LoRA", {"loras": text(json.dumps(unknown))}
    yield "40 LoRAs", {"loras": text(json.dumps(unknown * SEVERAL))}
    yield "clip_skip 12", {"clip_skip": number(12)}
    yield "begin -1", {"begin": number(-1)}
    yield "end 3000", {"end": number(3000)}
    for name in ("controls", "loras", "timings"):
        for garbage in GARBAGE:
            yield f"{name} garbage", {name: text(garbage)}


def postprocess_changes(valid: Tensors) -> Iterator[tuple[str, Tensors]]:
    """What is wrong with the tensors that `postprocess` gets."""
    yield "large", {"pixels": np.zeros((1, 2048, 2048, 3), np.uint8)}
    yield "64 images", {"pixels": np.repeat(valid["pixels"], 64, axis=0)}
    yield "none", {"pixels": valid["pixels"][:0]}
    yield "no height", {"pixels": valid["pixels"][:, :0]}
    yield "grey", {"pixels": valid["pixels"][..., :1]}
    yield "floats", {"pixels": valid["pixels"].astype(np.float32)}
    yield "format", {"output_format": text("gif")}
    for name in ("prompt", "negative_prompt"):
        yield f"long {name}", {"metadata": text(json.dumps({name: "\n" * 80_000}))}
    for garbage in GARBAGE:
        yield "metadata garbage", {"metadata": text(garbage)}
        yield "timings garbage", {"timings": text(garbage)}
    yield "format garbage", {"output_format": text(b"\xff" * 100_000)}


def annotate_changes(pictures: list[bytes]) -> Iterator[tuple[str, Tensors]]:
    """What is wrong with a request to `annotate`."""
    good = png(64, 64)
    header = good[:16] + (60_000).to_bytes(4, "big") * 2 + good[24:]
    for what in (b"", b"\0" * 5000, good[: len(good) // 2], header, *pictures):
        yield "broken picture", {"photo": text(what)}
    yield "large picture", {"photo": text(b"\x89PNG" + bytes(33 << 20))}
    yield "nobody in the picture", {"detector": text("pose")}
    for name in (b"", b"\xff", b"../../etc/passwd", b"auto", b"x" * 100_000):
        yield "detector", {"detector": text(name)}
    for name in ("resize", "response_format"):
        yield name, {name: text(b"\xff" * 1000)}
    for width, height in ((0, 64), (-8, 64), (100_000, 64), (4097, 4096)):
        yield f"size {width}x{height}", {"width": number(width), "height": number(height)}
    yield "width alone", {"width": number(64)}
    yield "unknown input", {"pose": text("x")}
    yield "wrong type", {"width": number(64, np.float32)}
    yield "two pictures", {"photo": text(good, good)}


def bodies(tensors: Mapping[str, Array]) -> Iterator[tuple[str, bytes]]:
    """HTTP bodies that are no request at all."""
    yield "empty", b""
    yield "no JSON", b"{"
    yield "not UTF-8", b'{"inputs": "\xff\xfe"}'
    yield "deep", b"[" * 5000
    yield "no inputs", b'{"inputs": []}'
    yield "list", b"[]"
    for name, array in list(tensors.items())[:6]:
        datatype = np_to_triton_dtype(array.dtype) or "BYTES"
        # Not here: a shape of 2**40. Triton 2.51 allocates what it says before it reads any data, and ends
        # with std::bad_alloc before anything of ours runs. `intaglio serve` then restarts it.
        for shape, data in (([-1], [0]), ([2], [0]), ([1], []), ([1], {}), ([1, 1, 1, 1, 1, 1, 1], [0])):
            one = {"name": name, "datatype": datatype, "shape": shape, "data": data}
            yield f"{name} {shape}", json.dumps({"inputs": [one]}).encode()
        yield (
            f"{name} type",
            json.dumps({"inputs": [{"name": name, "datatype": "X", "shape": [1], "data": [0]}]}).encode(),
        )


def lora_changes(sender: Sender, request: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Files and weights that `preprocess` would not have named for `diffuse`."""
    answer = sender.infer("preprocess", request | {"loras": text('[{"id": "night"}]')}, ["loras"])
    (resolved,) = json.loads(answer.as_numpy("loras")[0])
    for what, change in (
        ("a weight beyond the LoRA's bounds", {"weight": 3.9}),
        ("a negative weight of the LoRA", {"weight": -0.5}),
        ("another LoRA's file", {"id": "mara"}),
        ("a file that was never published", {"sha256": "0" * 64}),
        ("an unknown LoRA", {"id": "nobody"}),
    ):
        yield what, {"loras": text(json.dumps([resolved | change]))}


def as_json(tensors: Mapping[str, Array]) -> bytes | None:
    """The request over HTTP; None where JSON cannot say it."""
    inputs = []
    for name, array in tensors.items():
        try:
            data = [one.decode() if isinstance(one, bytes) else one for one in array.reshape(-1).tolist()]
            body = json.dumps(data, allow_nan=False)
        except (ValueError, UnicodeDecodeError):
            return None
        if len(body) > 2_000_000:
            return None
        datatype = np_to_triton_dtype(array.dtype) or "BYTES"
        inputs.append({"name": name, "datatype": datatype, "shape": list(array.shape), "data": data})
    return json.dumps({"inputs": inputs}).encode()


def attacks(sender: Sender, pictures: list[bytes]) -> list[Asked]:
    """Every kind of request that must be refused."""
    request = {
        "prompt": text("a person in a room"),
        "steps": number(1),
        "width": number(256),
        "height": number(192),
    }
    names = ["token_ids", "token_weights", "zero_negative", "clip_skip", "time_ids"]
    names += [
        "guidance_scale",
        "guidance_rescale",
        "guidance_window",
        "timesteps",
        "input_scale",
        "coefficients",
        "noise",
        "state",
        "controls",
        "control_maps",
        "loras",
    ]
    answer = sender.infer("preprocess", request, [*names, "metadata", "output_format", "timings"])
    tensors: Tensors = {name: answer.as_numpy(name) for name in [*names, "timings"]}
    encoded = {name: answer.as_numpy(name) for name in ("metadata", "output_format", "timings")}
    encoded["pixels"] = np.zeros((1, 192, 256, 3), np.uint8)
    kinds: list[tuple[str, Tensors, list[tuple[str, Tensors]]]] = [
        ("sdxl", request, list(request_changes(pictures))),
        ("preprocess", request, list(request_changes(pictures))),
        ("diffuse", tensors, [*diffuse_changes(tensors), *lora_changes(sender, request)]),
        ("postprocess", encoded, list(postprocess_changes(encoded))),
    ]
    if sender.client.is_model_ready("annotate"):  # only where the deployment has detectors
        photo = {"photo": text(png(64, 64)), "detector": text("canny")}
        kinds.append(("annotate", photo, list(annotate_changes(pictures))))
    found: list[Asked] = []
    for model, valid, changes in kinds:
        optional = {"steps", "width", "height", "timings"}
        optional |= {"clip_skip", "guidance_rescale", "guidance_window"}
        for name in valid.keys() - optional:
            left = {other: value for other, value in valid.items() if other != name}
            changes.append((f"without {name}", {}))
            found.append(_over_grpc(sender, model, f"without {name}", left))
        for what, change in changes:
            if not change:
                continue
            found.append(_over_grpc(sender, model, what, valid | change))
            body = as_json(valid | change)
            if body is not None:
                found.append(_over_http(sender, model, what, body, parsed=True))
        for what, body in bodies(valid):
            found.append(_over_http(sender, model, what, body, parsed=False))
    return found


def _over_grpc(sender: Sender, model: str, what: str, tensors: Tensors) -> Asked:
    return what, f"{model} over gRPC", lambda: sender.over_grpc(model, tensors)


def _over_http(sender: Sender, model: str, what: str, body: bytes, *, parsed: bool) -> Asked:
    return what, f"{model} over HTTP", lambda: sender.over_http(model, body, parsed=parsed)


def main() -> None:
    grpc_url, http_url, count, most_seconds, *paths = sys.argv[1:]
    sender = Sender(grpc_url, http_url)
    asked = attacks(sender, [Path(path).read_bytes() for path in paths])
    random.Random(0).shuffle(asked)
    wrong: dict[str, str] = {}
    slowest: tuple[float, str] = (0.0, "")
    started = time.perf_counter()
    sent = 0
    least = max(int(count), len(asked))
    while sent < least and time.perf_counter() - started < float(most_seconds):
        what, model, send = asked[sent % len(asked)]
        began = time.perf_counter()
        if problem := send():
            wrong[f"{model}, {what}"] = problem
        slowest = max(slowest, (time.perf_counter() - began, f"{model}, {what}"))
        sent += 1
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {"sent": sent, "kinds": len(asked), "seconds": seconds, "slowest": slowest, "wrong": wrong}
        )
    )


if __name__ == "__main__":
    main()
