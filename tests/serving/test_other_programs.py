"""What others send to the real server, and what they read in its answers."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from intaglio.cli import main
from intaglio.errors import InvalidRequest
from intaglio.serving.server import Server
from intaglio_client import Client, Control

from ..picture_readers import read_civitai, read_webui
from .conftest import REPOSITORY

pytestmark = pytest.mark.slow
ASKED: Any = {"width": 256, "height": 192, "steps": 1, "seed": 5}
PROMPT = "a person in a room"


def asked_over_http(server: Server, path: str, body: dict[str, Any]) -> Any:
    address = f"http://{server.http_url}/v2/models/sdxl/{path}"
    with urllib.request.urlopen(address, json.dumps(body).encode(), timeout=120) as answer:
        return json.loads(answer.read())


def test_base64_travels_in_json(server: Server, client: Client) -> None:
    """`/generate` and `/infer` answer in JSON; the images are those of gRPC."""
    expected = [image.data for image in client.generate_batch(PROMPT, **ASKED, num_images=2)]
    answer = asked_over_http(
        server, "generate", {"prompt": PROMPT, "response_format": "b64", "num_images": 2, **ASKED}
    )
    assert [base64.b64decode(text, validate=True) for text in answer["image"]] == expected
    assert "response_format" not in json.loads(answer["metadata"])
    one = asked_over_http(server, "generate", {"prompt": PROMPT, "response_format": "b64", **ASKED})
    assert base64.b64decode(one["image"]).startswith(b"\x89PNG")
    values = {"prompt": ("BYTES", PROMPT), "response_format": ("BYTES", "b64"), "num_images": ("INT32", 2)}
    values |= {name: ("INT64" if name == "seed" else "INT32", value) for name, value in ASKED.items()}
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "data": [value]}
        for name, (kind, value) in values.items()
    ]
    answer = asked_over_http(server, "infer", {"inputs": inputs, "outputs": [{"name": "image"}]})
    assert [base64.b64decode(text) for text in answer["outputs"][0]["data"]] == expected
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked_over_http(server, "generate", {"prompt": PROMPT, "response_format": "url", **ASKED})
    assert "allowed: one of bytes, b64" in refused.value.read().decode()


def test_a_tag_in_the_prompt_is_the_loras_input(client: Client) -> None:
    tagged = client.generate(f"{PROMPT}<lora:night:0.8>", **ASKED)
    listed = client.generate(PROMPT, **ASKED, loras=[("night", 0.8)])
    plain = client.generate(PROMPT, **ASKED)
    np.testing.assert_array_equal(tagged.pixels, listed.pixels)
    assert not np.array_equal(tagged.pixels, plain.pixels)
    assert client.repeat(tagged.data).data == listed.data, "its metadata name the LoRA once, in `loras`"
    with pytest.raises(InvalidRequest, match=r"^prompt: 'nobody' is unknown; allowed: .*night"):
        client.generate(f"{PROMPT} <lora:nobody:0.8>", **ASKED)


def test_other_programs_read_what_was_asked_for(client: Client) -> None:
    images = client.generate_batch(
        PROMPT,
        **ASKED | {"seed": -1},
        negative_prompt="fog",
        loras=[("night", 0.8)],
        scheduler="Euler a",
        cfg=3,
        n=4,
    )
    data = (REPOSITORY / "miniature/loras/night.safetensors").read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    for index, image in enumerate(images):
        found = read_webui(image.data)
        assert found["Prompt"] == f"{PROMPT}, in moonlight style <lora:night:0.8>"
        assert (found["Negative prompt"], found["Sampler"], found["CFG scale"]) == ("fog", "Euler a", "3")
        assert (found["Size"], found["Steps"], found["Seed"]) == ("256x192", "1", str(image.seed))
        assert (found["Batch size"], found["Batch pos"]) == ("4", str(index))
        (resource,) = read_civitai(image.data)["resources"]
        assert resource == {
            "type": "lora",
            "name": "night",
            "weight": 0.8,
            "hash": hashlib.sha256(tensors).hexdigest()[:12],
        }


def test_generate_reports_in_json_or_paths_alone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["generate", PROMPT, "--num-inference-steps", "1", "-n", "2", "--seed", "-1", "--cfg", "2"]
    asked += ["--width", "256", "--height", "192", "--url", server.grpc_url]
    assert main([*asked, "--json", "--out", str(tmp_path / "a.png")]) == 0
    answered = capsys.readouterr()
    first, second = json.loads(answered.out)["images"]
    assert (Path(first["path"]).name, Path(second["path"]).name) == ("a-0.png", "a-1.png")
    assert first["seed"] == first["metadata"]["seed"] >= 0
    assert (first["metadata"]["steps"], first["metadata"]["guidance_scale"]) == (1, 2.0)
    assert len(first["request_id"]) == 32
    assert main([*asked, "--quiet", "--out", str(tmp_path / "b.png")]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert paths == [str(tmp_path / "b-0.png"), str(tmp_path / "b-1.png")]
    assert all(Path(path).is_file() for path in paths)


def test_the_port_of_http_is_named(server: Server) -> None:
    with (
        Client(server.http_url, deadline=20) as client,
        pytest.raises(InvalidRequest, match=r"^url: .* answers in HTTP; allowed: the port of gRPC"),
    ):
        client.generate(PROMPT, **ASKED)


def test_a_photograph_as_a_pose_is_noticed(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    photograph = PIL.Image.effect_noise((256, 192), 60).convert("RGB")
    with caplog.at_level(logging.WARNING):
        client.generate(PROMPT, **ASKED, controls=[Control("pose", image=photograph)])
    assert "of it is black, but a pose map is mostly black" in caplog.text
