"""The miniature through the real server: what the client gets, what bad input gets, what many get at once."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from intaglio.cli import main
from intaglio.contract.models import SDXL
from intaglio.contract.ports import Port
from intaglio.imaging.images import read_metadata
from intaglio.serving.server import Server
from intaglio_client import NO_RETRIES, Client, Control, DeadlineExceeded, InvalidRequest, Lora, QueueFull

pytestmark = pytest.mark.slow
SMALL: Any = {"width": 256, "height": 192, "steps": 1, "seed": 1}
WIRE = {
    "TYPE_STRING": "BYTES",
    "TYPE_INT32": "INT32",
    "TYPE_INT64": "INT64",
    "TYPE_FP32": "FP32",
    "TYPE_BOOL": "BOOL",
}


def test_an_image_with_pose_and_lora(client: Client) -> None:
    image = client.generate(
        "mara waving hello on a beach", pose="waving-01", loras=[Lora("mara")], seed=0, steps=4
    )
    assert (image.pixels.shape, image.seed) == ((256, 256, 3), 0)
    assert image.data.startswith(b"\x89PNG")
    assert read_metadata(image.data) == dict(image.metadata), "what the file says is what the client got"
    assert image.metadata["controls"][0]["pose"] == "waving-01"
    assert set(image.timings) - {"lora_swap"} == {
        "preprocess",
        "text_encoders",
        "denoise",
        "vae",
        "postprocess",
        "request",
    }


def test_defaults_come_from_the_deployment(client: Client, server: Server) -> None:
    image = client.generate("a person in a room")
    defaults = server_defaults(server)
    assert {name: image.metadata[name] for name in defaults} == defaults


def server_defaults(server: Server) -> dict[str, Any]:
    return dict(server.deployment.defaults.model_dump(exclude={"preset_values"}))


@pytest.mark.parametrize(("output_format", "pillow"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats_and_batches(client: Client, output_format: Any, pillow: str) -> None:
    images = client.generate_batch("a person in a room", **SMALL, num_images=2, output_format=output_format)
    assert [PIL.Image.open(io.BytesIO(image.data)).format for image in images] == [pillow, pillow]
    assert [read_metadata(image.data)["image_index"] for image in images] == [0, 1]  # type: ignore[index]
    assert images[0].pixels.shape == (192, 256, 3)
    assert (images[0].pixels != images[1].pixels).any()


def test_the_same_request_gives_the_same_bytes(client: Client) -> None:
    first, second = (client.generate("a person in a room", **SMALL).data for _ in range(2))
    assert first == second


def test_generate_and_like(
    server: Server, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`intaglio generate`, then `--like`: bit for bit; `--like` with another pose: another image."""
    photo = tmp_path / "photo.png"
    PIL.Image.effect_noise((300, 200), 60).convert("RGB").save(photo)
    first, again, other = (tmp_path / name for name in ("first.png", "again.png", "other.png"))
    url = ["--url", server.grpc_url]
    asked = [
        "generate",
        "a dancer in the snow",
        "--pose",
        "dancing-01",
        "--control",
        f"type=canny,image={photo},preprocess=canny,weight=0.5",
    ]
    assert (
        main(
            [*asked, "--steps", "3", "--num-images", "1", "--scheduler", "euler_a", "--out", str(first), *url]
        )
        == 0
    )
    assert main(["generate", "--like", str(first), "--out", str(again), *url]) == 2, (
        "the control image is missing"
    )
    assert "images: 1 control image(s)" in capsys.readouterr().err
    assert main(["generate", "--like", str(first), "--image", str(photo), "--out", str(again), *url]) == 0
    assert first.read_bytes() == again.read_bytes()
    assert client.repeat(first, images=[photo.read_bytes()]).data == first.read_bytes()
    assert (
        main(
            [
                "generate",
                "--like",
                str(first),
                "--image",
                str(photo),
                "--pose",
                "sitting-01",
                "--out",
                str(other),
                *url,
            ]
        )
        == 0
    )
    metadata = read_metadata(other.read_bytes())
    assert metadata is not None
    assert [control.get("pose") for control in metadata["controls"]] == ["sitting-01", None]


def test_like_picks_its_image_of_a_batch(client: Client) -> None:
    images = client.generate_batch("a person in a room", **SMALL, num_images=2)
    assert client.repeat(images[1].data).data == images[1].data


def test_a_deadline_is_kept(client: Client, server: Server) -> None:
    with (
        Client(server.grpc_url, deadline=0.2) as hasty,
        pytest.raises(DeadlineExceeded, match="within the deadline"),
    ):
        hasty.generate("a person in a room", steps=150, pose="waving-01")
    assert client.generate("a person in a room", **SMALL).data


def test_requests_at_once_do_not_mix(server: Server, client: Client) -> None:
    seeds = range(6)
    alone = [client.generate("a person in a room", **{**SMALL, "seed": seed}).data for seed in seeds]

    def ask(seed: int) -> bytes:
        with Client(server.grpc_url) as one:
            return one.generate("a person in a room", **{**SMALL, "seed": seed}).data

    with ThreadPoolExecutor(len(seeds)) as pool:
        assert list(pool.map(ask, seeds)) == alone


def test_a_full_queue_says_so(server: Server) -> None:
    """More at once than the queue holds, while slices of 150 steps have the engines: some are refused,
    the others get their images, and then there is room again.
    """
    count = server.deployment.server.queue_size + 8
    long = {**SMALL, "steps": 150, "slice_steps": 150}
    with Client(server.grpc_url, retries=NO_RETRIES) as client:

        def ask(seed: int) -> bool:
            asked = {**SMALL, "seed": seed, "guidance_scale": 1.0, "priority": "batch"}
            try:
                return bool(client.generate("a person in a room", **asked).data)
            except QueueFull:
                return False

        with ThreadPoolExecutor(count) as pool:
            with ExitStack() as running:
                for _ in range(3):
                    stream = running.enter_context(client.stream("a person in a room", **long))
                    assert next(stream)
                asked = [pool.submit(ask, seed) for seed in range(count)]
                first = wait(asked, return_when=FIRST_COMPLETED).done
                assert not any(one.result() for one in first)
            assert {one.result() for one in asked} == {True, False}
        assert ask(0)


def test_memory_and_no_torch(server: Server, client: Client) -> None:
    client.generate("mara waving hello on a beach", pose="waving-01", steps=2)
    resident = server.process.resident_bytes()
    assert {name.rsplit("_", 2)[0] for name in resident} == {
        "tritonserver",
        "annotate",
        "sdxl_stream",
        "preprocess",
        "diffuse",
        "postprocess",
    }
    assert sum(resident.values()) < 2.5 * 2**30
    for name, process in server.process.stubs.items():
        mapped = {Path(region.path).name for region in process.memory_maps()}
        assert not [library for library in mapped if library.startswith(("libtorch", "libc10"))], name


def test_what_triton_costs(client: Client) -> None:
    """Ensemble, gRPC and client outside the stages: at most 5 % of a 20-step image with pose."""
    shares = []
    for seed in range(3):
        timings = client.generate(
            "mara waving hello on a beach", pose="waving-01", steps=20, seed=seed
        ).timings
        stages = sum(seconds for stage, seconds in timings.items() if stage != "request")
        shares.append(1 - stages / timings["request"])
    assert sorted(shares)[1] <= 0.05, shares


# Bad input, past our own client: what any gRPC client gets.


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header says how large it is, and nothing follows."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


GREY = encoded(PIL.Image.effect_noise((64, 64), 50))
SIXTEEN_BIT = encoded(PIL.Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16))


def infer(client: triton.InferenceServerClient, **values: Any) -> list[bytes]:
    """Images for raw inputs: a value is bytes, a number, an array sent as it is, or None for none."""
    inputs = []
    for name, value in values.items():
        if value is None:
            continue
        port: Port = SDXL.input(name)
        array = (
            value
            if isinstance(value, np.ndarray)
            else np.array(value if isinstance(value, list) else [value])
        )
        if port.datatype == "TYPE_STRING" and not isinstance(value, np.ndarray):
            array = array_of(value if isinstance(value, list) else [value])
        elif not isinstance(value, np.ndarray):
            array = array.astype(
                {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}[WIRE[port.datatype]]
            )
        wire = {"f": "FP32", "O": "BYTES"}.get(array.dtype.kind, f"INT{8 * array.dtype.itemsize}")
        tensor = triton.InferInput(name, list(array.shape), wire)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return list(client.infer("sdxl", inputs, client_timeout=120).as_numpy("image"))


def array_of(values: list[bytes]) -> Any:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def controls(*entries: dict[str, Any]) -> bytes:
    return json.dumps(list(entries)).encode()


def pictured(data: bytes, **more: Any) -> dict[str, Any]:
    return {"images": [data], "controls": controls({"type": "canny", "image": 0, **more})}


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown scheduler": ("scheduler", {"scheduler": b"dpm"}),
    "size not a multiple of 8": ("width", {"width": 250}),
    "size not built": ("width", {"width": 512, "height": 512}),
    "height not built": ("height", {"width": 256, "height": 1024}),
    "no steps": ("steps", {"steps": 0}),
    "1000 steps": ("steps", {"steps": 1000}),
    "guidance NaN": ("guidance_scale", {"guidance_scale": float("nan")}),
    "guidance infinite": ("guidance_scale", {"guidance_scale": float("inf")}),
    "negative seed": ("seed", {"seed": -1}),
    "no prompt": ("prompt", {"prompt": None}),
    "nothing at all": ("prompt", dict.fromkeys(("prompt", "width", "height", "steps", "seed"))),
    "empty prompt": ("prompt", {"prompt": b""}),
    "prompt of 10 MB": ("prompt", {"prompt": b"x" * 10_000_000}),
    "prompt of too many chunks": ("prompt", {"prompt": b"cat " * 900}),
    "prompt that is no UTF-8": ("prompt", {"prompt": b"\xff\xfe fox"}),
    "negative prompt that is no UTF-8": ("negative_prompt", {"negative_prompt": b"\xc3("}),
    "unknown format": ("output_format", {"output_format": b"gif"}),
    "too many images asked for": ("num_images", {"num_images": 17}),
    "more images than the deployment allows": ("num_images", {"num_images": 16}),
    "no image at all": ("images[0]", pictured(b"this is not an image")),
    "empty image": ("images[0]", pictured(b"")),
    "truncated PNG": ("images[0]", pictured(GREY[: len(GREY) // 2])),
    "30000x30000 in the header": ("images[0]", pictured(png_header(30000, 30000))),
    "GIF": ("images[0]", pictured(encoded(PIL.Image.new("RGB", (8, 8)), "GIF"))),
    "too many images": ("images", {"images": [GREY] * 9}),
    "image nobody refers to": ("images[0]", {"images": [GREY]}),
    "index past the images": (
        "controls[0].image",
        {"images": [GREY], "controls": controls({"type": "canny", "image": 1})},
    ),
    "unknown control": (
        "controls[0].type",
        {"controls": controls({"type": "scribble", "pose": "waving-01"})},
    ),
    "pose that is a path": (
        "controls[0].pose",
        {"controls": controls({"type": "pose", "pose": "../../etc/passwd"})},
    ),
    "control weight": (
        "controls[0].weight",
        {"controls": controls({"type": "pose", "pose": "waving-01", "weight": 1e9})},
    ),
    "controls that are no JSON": ("controls", {"controls": b"{["}),
    "controls nested without end": ("controls", {"controls": b"[" * 60_000}),
    "unknown LoRA": ("loras[0].id", {"loras": b'[{"id": "nobody"}]'}),
    "LoRA that is a path": ("loras[0].id", {"loras": b'[{"id": "../mara"}]'}),
    "wrong type": ("steps", {"steps": np.array([1.0], np.float32)}),
    "wrong shape": ("steps", {"steps": np.array([1, 1], np.int32)}),
    "wrong rank": ("width", {"width": np.array([[256]], np.int32)}),
    "no prompt in the tensor": ("prompt", {"prompt": array_of([])}),
}


@pytest.fixture(scope="module")
def raw(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as connected:
        yield connected


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_the_next_request_works(raw: triton.InferenceServerClient, name: str) -> None:
    field, values = BAD[name]
    good = {"prompt": b"a person in a room", "width": 256, "height": 192, "steps": 1, "seed": 1}
    with pytest.raises(InferenceServerException) as refused:
        infer(raw, **{**good, **values})
    message = refused.value.message()
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT", message
    assert field in message
    assert "allowed: " in message or "expect" in message.lower()
    assert len(message.strip().splitlines()) == 1
    assert len(message) < 600
    assert len(infer(raw, **good)) == 1


@pytest.mark.parametrize(
    "image",
    [
        encoded(PIL.Image.new("CMYK", (40, 40), (10, 20, 30, 40)), "JPEG"),
        SIXTEEN_BIT,
        encoded(PIL.Image.new("RGBA", (40, 40), (255, 0, 0, 100))),
        encoded(PIL.Image.new("LA", (40, 40), (200, 10))),
        encoded(PIL.Image.new("P", (40, 40))),
        encoded(PIL.Image.new("RGBA", (40, 40), (255, 0, 0, 100)), "WEBP"),
    ],
    ids=["cmyk", "16-bit", "alpha", "grey-alpha", "palette", "webp-alpha"],
)
def test_unusual_images_are_converted(client: Client, image: bytes) -> None:
    assert client.generate(
        "a person in a room", **SMALL, controls=[Control("canny", image=image, preprocess="canny")]
    ).data


def test_the_client_raises_what_the_server_named(client: Client) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.generate("a person in a room", width=512, height=512)
    assert refused.value.field == "width"
    assert "256x256" in refused.value.allowed


def test_a_contract_the_server_agrees_with(raw: triton.InferenceServerClient) -> None:
    """Names, types and shapes that the server reports are the table's."""
    reported = raw.get_model_metadata(SDXL.name)
    for ports, found in ((SDXL.inputs, reported.inputs), (SDXL.outputs, reported.outputs)):
        assert {(port.name, WIRE[port.datatype], port.dims) for port in ports} == {
            (one.name, one.datatype, tuple(one.shape)) for one in found
        }
