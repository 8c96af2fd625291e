"""Every bad input is one line that names the field and what is allowed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.published_presets import PRESETS_NAME, publish_presets
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import DELIVERY
from intaglio.contract.presets import Presets
from intaglio.errors import EngineMismatch, InvalidRequest
from intaglio.imaging import images
from intaglio.imaging.openpose import draw_pose
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.store import LoraStore
from intaglio.stages.preprocess.stage import Preprocess


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_only_png(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that nobody should decode."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + encoded(Image.new("RGB", (4, 4)))[33:]
    )


SMALL = encoded(Image.new("RGB", (16, 16), (200, 30, 40)))
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
POSE = json.dumps([{"type": "pose", "image": 0}])


@pytest.fixture(scope="module")
def stage(tiny: Any) -> Iterator[Preprocess]:
    with Preprocess(tiny.manifest, tiny.folder) as stage:
        yield stage


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("unknown scheduler", {"scheduler": "plms"}, "scheduler", "euler_a"),
    ("scheduler not UTF-8", {"scheduler": b"\xff"}, "scheduler", "UTF-8"),
    ("width not of 8", {"width": 65}, "width", "64x96"),
    ("size not built", {"width": 64, "height": 64}, "height", "64x96, 72x64"),
    ("width out of range", {"width": 2**31 - 1}, "width", "64x96, 72x64"),
    ("negative height", {"height": -8}, "height", "64x96, 72x64"),
    ("steps 0", {"steps": 0}, "steps", "1 to 50"),
    ("steps 1000", {"steps": 1000}, "steps", "1 to 50"),
    ("steps above limit", {"steps": 51}, "steps", "1 to 50"),
    ("guidance NaN", {"guidance_scale": float("nan")}, "guidance_scale", "0 to 50"),
    ("guidance window", {"guidance_begin": 0.5, "guidance_end": 0.5}, "guidance_begin", "less than end"),
    ("guidance window outside", {"guidance_end": 1.5}, "guidance_end", "0 to 1"),
    ("guidance inf", {"guidance_scale": float("inf")}, "guidance_scale", "0 to 50"),
    ("seed negative", {"seed": -1}, "seed", "0 to 9223372036854775807"),
    ("empty prompt", {"prompt": ""}, "prompt", "1 to 2000 bytes"),
    ("blank prompt", {"prompt": " \n "}, "prompt", "1 to 2000 bytes"),
    ("10 MB prompt", {"prompt": "a" * 10_000_000}, "prompt", "at most 2000 bytes"),
    ("long prompt", {"prompt": "cat " * 400}, "prompt", "2 chunks"),
    ("long negative", {"negative_prompt": "cat " * 400}, "negative_prompt", "2 chunks"),
    ("prompt not UTF-8", {"prompt": b"caf\xe9"}, "prompt", "UTF-8"),
    ("negative not UTF-8", {"negative_prompt": b"\xc3("}, "negative_prompt", "UTF-8"),
    ("0 images", {"num_images": 0}, "num_images", "1 to 4"),
    ("too many images asked", {"num_images": 5}, "num_images", "1 to 4"),
    ("more images than any deployment allows", {"num_images": 100}, "num_images", "1 to 4"),
    (
        "too costly",
        {"num_images": 4, "steps": 50, "controls": '[{"type":"pose","pose":"waving-01"}]'},
        "steps",
        "1 to 25",
    ),
    ("unknown format", {"output_format": "gif"}, "output_format", "png, jpeg, webp"),
    ("not an image", {"images": [b"hello"], "controls": POSE}, "images[0]", "PNG, JPEG or WEBP"),
    ("no bytes", {"images": [b""], "controls": POSE}, "images[0]", "1 to"),
    ("truncated PNG", {"images": [NOISE[:300]], "controls": POSE}, "images[0]", "whole"),
    ("truncated header", {"images": [SMALL[:20]], "controls": POSE}, "images[0]", "PNG, JPEG or WEBP"),
    (
        "30000x30000 header",
        {"images": [header_only_png(30000, 30000)], "controls": POSE},
        "images[0]",
        "262144 pixels",
    ),
    (
        "1000x1000 header",
        {"images": [header_only_png(1000, 1000)], "controls": POSE},
        "images[0]",
        "262144 pixels",
    ),
    (
        "GIF",
        {"images": [encoded(Image.new("RGB", (4, 4)), "GIF")], "controls": POSE},
        "images[0]",
        "PNG, JPEG or WEBP",
    ),
    ("too many input images", {"images": [SMALL] * 4, "controls": POSE}, "images", "at most 3"),
    ("unused image", {"images": [SMALL]}, "images[0]", "controls refer to"),
    (
        "no such image",
        {"images": [SMALL], "controls": '[{"type":"pose","image":1}]'},
        "controls[0].image",
        "0 to 0",
    ),
    (
        "negative index",
        {"images": [SMALL], "controls": '[{"type":"pose","image":-1}]'},
        "controls[0].image",
        "a whole number of at least 0",
    ),
    (
        "unknown control",
        {"controls": '[{"type":"depth","pose":"waving-01"}]'},
        "controls[0].type",
        "pose, edges, canny",
    ),
    ("unknown pose", {"controls": '[{"type":"pose","pose":"flying-01"}]'}, "controls[0].pose", "waving-01"),
    ("pose as path", {"controls": '[{"type":"pose","pose":"../passwd"}]'}, "controls[0].pose", "at most 64"),
    ("no source", {"controls": '[{"type":"pose"}]'}, "controls[0]", "exactly one of image"),
    (
        "weight NaN",
        {"controls": '[{"type":"pose","pose":"waving-01","weight":NaN}]'},
        "controls[0].weight",
        "JSON list",
    ),
    (
        "weight text",
        {"controls": '[{"type":"pose","pose":"waving-01","weight":"1"}]'},
        "controls[0].weight",
        "a number from 0 to 2",
    ),
    (
        "window",
        {"controls": '[{"type":"pose","pose":"waving-01","begin":0.5,"end":0.5}]'},
        "controls[0].begin",
        "less than end",
    ),
    (
        "unknown key",
        {"controls": '[{"type":"pose","pose":"waving-01","strength":1}]'},
        "controls[0].strength",
        "type, image, pose",
    ),
    (
        "canny of a pose",
        {"controls": '[{"type":"pose","pose":"waving-01","preprocess":"canny"}]'},
        "controls[0].preprocess",
        "none",
    ),
    (
        "too many controls",
        {"controls": json.dumps([{"type": "pose", "pose": "waving-01"}] * 3)},
        "controls",
        "0 to 2",
    ),
    ("not JSON", {"controls": "{"}, "controls", "JSON list"),
    ("not a list", {"controls": "{}"}, "controls", "a list, each a mapping"),
    ("deep JSON", {"controls": "[" * 30000}, "controls", "JSON list"),
    ("big JSON", {"controls": "[" + " " * 70000 + "]"}, "controls", "65536 bytes"),
    ("unknown LoRA", {"loras": '[{"id":"knight"}]'}, "loras[0].id", "none"),
]


@pytest.mark.parametrize(
    ("values", "field", "allowed"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_bad_input_names_field_and_range(
    stage: Preprocess, request_tensors: Any, values: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        stage(request_tensors(**{"prompt": "a fox", **values}))
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert allowed in message.split("; allowed: ")[1]
    assert "\n" not in message
    assert len(message) <= 500
    assert stage(request_tensors(prompt="a fox", seed=0))["state"].shape == (4, 1, 4, 12, 8)


@pytest.mark.parametrize(
    ("tensors", "field"),
    [
        ({}, "prompt"),
        ({"prompt": np.array([b"a", b"b"], object)}, "prompt"),
        ({"prompt": np.array([[b"a"]], object)}, "prompt"),
        ({"prompt": np.array([1], np.int32)}, "prompt"),
        ({"prompt": np.array([b"a"], object), "steps": np.array([3], np.int64)}, "steps"),
        ({"prompt": np.array([b"a"], object), "steps": np.array([3, 4], np.int32)}, "steps"),
        ({"prompt": np.array([b"a"], object), "strength": np.array([3], np.int32)}, "strength"),
    ],
)
def test_wrong_tensors(stage: Preprocess, tensors: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field}: "):
        stage(tensors)


def test_seed_absent_is_drawn_and_reported_seed_zero_is_kept(stage: Preprocess, request_tensors: Any) -> None:
    drawn = [json.loads(stage(request_tensors(prompt="a"))["metadata"][0])["seed"] for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert json.loads(stage(request_tensors(prompt="a", seed=0))["metadata"][0])["seed"] == 0


def test_metadata_repeats_the_request(stage: Preprocess, request_tensors: Any) -> None:
    metadata = json.loads(stage(request_tensors(prompt="a fox", seed=3, guidance_scale=7.1))["metadata"][0])
    again = {
        name: metadata[name]
        for name in (
            "prompt",
            "seed",
            "width",
            "height",
            "steps",
            "guidance_scale",
            "scheduler",
            "num_images",
        )
    }
    assert again["guidance_scale"] == 7.1
    first, second = (
        stage(request_tensors(prompt="a fox", seed=3, guidance_scale=7.1)),
        stage(request_tensors(**again)),
    )
    for name in ("state", "token_ids", "coefficients", "guidance_scale"):
        np.testing.assert_array_equal(first[name], second[name])


def test_a_jpeg_is_refused_exactly_where_its_last_image_is_too_small(
    stage: Preprocess, request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings count, the largest index counts, and how the answer travels does not."""
    jpegs = {"num_images": 2, "output_format": "jpeg"}
    asked = request_tensors(prompt="a fox", seed=1, images=[NOISE], controls=POSE, **jpegs)
    written = json.loads(stage(asked)["metadata"][0]) | {"image_index": 1}
    assert written["warnings"]
    for name in DELIVERY:
        del written[name]
    size = len(images._XMP_MARKER + images._own_xmp(written, source_type=True))
    monkeypatch.setattr(images, "_LARGEST_SEGMENT", size)
    assert stage(asked)
    monkeypatch.setattr(images, "_LARGEST_SEGMENT", size - 1)
    with pytest.raises(InvalidRequest, match=f"output_format: {size} bytes of metadata do not fit"):
        stage(asked)


def test_fused_loras_may_be_named(tiny: Any, request_tensors: Any) -> None:
    manifest = tiny.manifest.model_copy(
        update={"loras": (ResolvedLora(id="knight", weight=0.8, sha256="0" * 64),)}
    )
    with Preprocess(manifest, tiny.folder) as stage:
        for loras in ("", "[]", '[{"id":"knight"}]', '[{"id":"knight","weight":0.8}]'):
            metadata = json.loads(stage(request_tensors(prompt="a", loras=loras))["metadata"][0])
            assert metadata["loras"] == [{"id": "knight", "weight": 0.8}]
        for loras, field in (
            ('[{"id":"knight","weight":0.5}]', "loras[0].weight"),
            ('[{"id":"knight"},{"id":"knight"}]', "loras"),
            ('[{"id":"wizard"}]', "loras[0].id"),
        ):
            with pytest.raises(InvalidRequest, match=r"knight at 0\.8") as caught:
                stage(request_tensors(prompt="a", loras=loras))
            assert caught.value.field == field


def test_stochastic_solvers_get_one_draw_a_step(stage: Preprocess, request_tensors: Any) -> None:
    noise = stage(request_tensors(prompt="a", seed=1, steps=4, scheduler="euler_a", num_images=2))["noise"]
    assert noise.shape == (4, 2, 4, 12, 8)
    assert 0.8 < noise.std() < 1.2
    assert not stage(request_tensors(prompt="a", steps=4))["noise"].any()


def test_changed_tokenizer_is_refused_at_load(tiny: Any) -> None:
    files = {
        **tiny.manifest.files,
        "tokenizer/vocab.json": FileDigest(
            sha256="1" * 64, size=tiny.manifest.files["tokenizer/vocab.json"].size
        ),
    }
    with (
        pytest.raises(
            EngineMismatch, match=r"tokenizer/vocab.json was changed.*intaglio build configs/tiny.yaml"
        ),
        Preprocess(tiny.manifest.model_copy(update={"files": files}), tiny.folder),
    ):
        pass


def write_swapping(tiny: Any, folder: Path) -> LoraStore:
    """Write a build that serves `night` and the preset `dusk` of it."""
    shutil.copytree(tiny.folder, folder, dirs_exist_ok=True)
    store = LoraStore(folder / "loras")
    store.folder.mkdir()
    store.path("a" * 64).write_bytes(save({"a": np.arange(4, dtype=np.float32)}))
    night = ServedLora(kind="style", trigger_words=("moonlight",), bounds=(0, 1), versions=("a" * 64,))
    store.write(ServedLoras(loras={"night": night}, presets={"dusk": {"night": 0.5}}))
    return store


@pytest.fixture(scope="module")
def swapping(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preprocess]:
    """The stage of that build."""
    folder = tmp_path_factory.mktemp("swapping")
    write_swapping(tiny, folder)
    with Preprocess(tiny.manifest.model_copy(update={"swap": "transformer"}), folder) as stage:
        yield stage


@pytest.mark.parametrize(
    ("prompt", "plain", "weight"),
    [
        ("a (red:1.2) fox, <lora:night:0.8>snow", "a (red:1.2) fox, snow", 0.8),
        ("<lora:dusk> a fox, snow", " a fox, snow", 0.5),
        (r"a \<lora:night:0.1> fox <lora:night>", r"a \<lora:night:0.1> fox ", 1.0),
    ],
)
def test_tags_in_the_prompt_are_the_loras_input(
    swapping: Preprocess, request_tensors: Any, prompt: str, plain: str, weight: float
) -> None:
    """Bit for bit: tokens, weights, noise and the set; only the metadata keep the prompt as it was given."""
    loras = json.dumps([{"id": "night", "weight": weight}])
    tagged = swapping(request_tensors(prompt=prompt, seed=1))
    listed = swapping(request_tensors(prompt=plain, loras=loras, seed=1))
    both = swapping(request_tensors(prompt=prompt, loras=loras, seed=1))
    assert set(tagged) == set(listed)
    for name in set(tagged) - {"metadata", "timings"}:
        np.testing.assert_array_equal(tagged[name], listed[name], err_msg=name)
        np.testing.assert_array_equal(tagged[name], both[name], err_msg=name)
    metadata = json.loads(tagged["metadata"][0])
    assert metadata == json.loads(listed["metadata"][0]) | {"prompt": prompt}
    assert metadata["added_words"] == ["moonlight"]
    data = np.arange(4, dtype=np.float32).tobytes()
    assert metadata["lora_hashes"] == {"night": hashlib.sha256(data).hexdigest()[:12]}


def test_a_photograph_as_a_pose_is_noticed(stage: Preprocess, request_tensors: Any) -> None:
    pose_map = encoded(Image.fromarray(draw_pose(np.full((1, 18, 3), 0.5), width=64, height=96)))
    for data, kind, warns in ((SMALL, "pose", True), (pose_map, "pose", False), (SMALL, "edges", False)):
        controls = json.dumps([{"type": kind, "image": 0}])
        outputs = stage(request_tensors(prompt="a", images=[data], controls=controls))
        (*warnings,) = json.loads(outputs["metadata"][0])["warnings"]
        assert bool(warnings) == warns
        assert all(warning.startswith("controls[0].image: 0% of it is black") for warning in warnings)


def test_presets_are_those_that_are_published_now(tiny: Any, request_tensors: Any, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(tiny.folder, folder)
    publish_presets(folder, Presets(scenes={"beach": "on a beach"}))
    with Preprocess(tiny.manifest, folder) as stage:

        def metadata(scene: str) -> Any:
            return json.loads(stage(request_tensors(prompt="a fox", scene=scene))["metadata"][0])

        first = metadata("beach")
        assert (first["prompt"], first["scene"], first["warnings"]) == ("a fox, on a beach", "beach", [])
        publish_presets(folder, Presets(scenes={"snow": "in the snow"}))
        assert metadata("snow")["prompt"] == "a fox, in the snow"
        (folder / PRESETS_NAME).write_text("{")
        damaged = metadata("snow")
        assert damaged["prompt"] == "a fox, in the snow"
        assert [warning for warning in damaged["warnings"] if "presets that were read before" in warning]


def test_the_method_of_a_lora_that_is_published_now_sets_the_steps(
    tiny: Any, request_tensors: Any, tmp_path: Path
) -> None:
    store = write_swapping(tiny, tmp_path)
    loras = json.dumps([{"id": "night"}])
    with Preprocess(tiny.manifest.model_copy(update={"swap": "transformer"}), tmp_path) as stage:

        def metadata(**values: Any) -> Any:
            outputs = stage(request_tensors(prompt="a fox", loras=loras, **values))
            return json.loads(outputs["metadata"][0])

        plain = metadata()
        served = store.current()
        fast = served.loras["night"].model_copy(update={"method": "lcm"})
        store.write(served.model_copy(update={"loras": {"night": fast}}))
        quick = metadata()
        assert (plain["steps"], quick["steps"], quick["scheduler"]) == (3, 4, "lcm")
        assert (plain["warnings"], quick["warnings"]) == ([], [])
        assert metadata(steps=9)["warnings"] == ["steps: 9, but lora night (method lcm) is made for 4 to 8"]
