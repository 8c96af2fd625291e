"""Control maps: drawn, decoded, kept for the next request, and never left to a thread."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.pose import PoseDetector
from intaglio.detectors.sizing import sized
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.images import decode_image
from intaglio.imaging.openpose import draw_pose
from intaglio.recently_used import RecentlyUsed
from intaglio.stages.preprocess.control_maps import ControlMaps
from intaglio.stages.preprocess.stage import Preprocess

from ....photographs import nobody, one_person

DETECTORS = Path(__file__).parents[4] / "miniature/detectors"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SMALL = encoded(Image.new("RGB", (16, 16), (200, 30, 40)))
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
POSE = json.dumps([{"type": "pose", "image": 0}])


@pytest.fixture(scope="module")
def stage(tiny: Any) -> Iterator[Preprocess]:
    with Preprocess(tiny.manifest, tiny.folder) as stage:
        yield stage


def test_pose_and_canny_maps(stage: Preprocess, request_tensors: Any) -> None:
    half = encoded(Image.fromarray(np.repeat(np.uint8([[0] * 32 + [255] * 32]), 64, axis=0)))
    controls = json.dumps(
        [{"type": "pose", "pose": "waving-01"}, {"type": "canny", "image": 0, "preprocess": "canny"}]
    )
    outputs = stage(request_tensors(prompt="a", images=[half], controls=controls))
    pose, edges = outputs["control_maps"]
    assert pose.shape == (96, 64, 3)
    assert len(np.unique(pose.reshape(-1, 3), axis=0)) > 18  # every limb has its colour
    columns = np.flatnonzero(edges.any(axis=(0, 2)))
    assert len(columns) > 0
    assert set(columns) <= {30, 31, 32, 33}
    assert [entry["control"] for entry in json.loads(outputs["controls"][0])] == ["pose", "edges"]


def test_a_picture_sent_again_is_not_decoded_again(
    stage: Preprocess, request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def counted(data: bytes, *, field: str, most_pixels: int) -> Image.Image:
        decoded.append(field)
        return decode_image(data, field=field, most_pixels=most_pixels)

    monkeypatch.setattr("intaglio.stages.preprocess.control_maps.decode_image", counted)
    pictures = [
        encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 64, 3), np.uint8)))
        for seed in (11, 12)
    ]
    canny = json.dumps([{"type": "canny", "image": 0, "preprocess": "canny"}])

    def maps(data: bytes, controls: str = POSE, **values: Any) -> Any:
        return stage(request_tensors(prompt="a", images=[data], controls=controls, **values))[
            "control_maps"
        ].copy()

    first, other = maps(pictures[0]), maps(pictures[1])
    np.testing.assert_array_equal(first[0], np.asarray(Image.open(io.BytesIO(pictures[0]))))
    np.testing.assert_array_equal(maps(pictures[0]), first)
    np.testing.assert_array_equal(maps(pictures[1]), other)
    assert len(decoded) == 2
    assert not np.array_equal(maps(pictures[0], canny), first)
    assert maps(pictures[0], width=72, height=64).shape == (1, 64, 72, 3)
    assert len(decoded) == 4, "another size or preprocessing is another map"


def test_a_picture_that_was_refused_is_refused_again(stage: Preprocess, request_tensors: Any) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"^images\[0\]: damaged"):
            stage(request_tensors(prompt="a", images=[NOISE[:300]], controls=POSE))


def test_a_refused_request_leaves_no_work_behind(
    stage: Preprocess, request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(
        ControlMaps,
        "_make",
        lambda self, request, index, palette, until: begun.append(index) or time.sleep(0.05),
    )
    controls = json.dumps([{"type": "pose", "pose": "waving-01", "weight": weight} for weight in (0.5, 1.0)])
    with pytest.raises(InvalidRequest, match="chunks"):
        stage(request_tensors(prompt="cat " * 400, controls=controls))
    assert not begun, "the prompt is refused first"
    monkeypatch.setattr(Preprocess, "_noise_tensors", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage(request_tensors(prompt="a cat", controls=controls))
    done = len(begun)
    time.sleep(0.1)
    assert len(begun) == done, "nothing goes on"


def test_control_maps_may_not_be_written_to(stage: Preprocess, request_tensors: Any) -> None:
    maps = stage(request_tensors(prompt="a", images=[SMALL], controls=POSE))["control_maps"]
    with pytest.raises(ValueError, match="read-only"):
        maps[0, 0, 0, 0] = 1


def test_a_pose_that_came_after_the_build_is_served_and_drawn_again_when_it_changes(
    tiny: Any, tmp_path: Path, request_tensors: Any
) -> None:
    added = tmp_path / "poses"
    manifest = tiny.manifest.model_copy(update={"poses_source": str(added)})

    def maps(stage: Preprocess, name: str) -> Any:
        controls = json.dumps([{"type": "pose", "pose": name}])
        return stage(request_tensors(prompt="a", controls=controls))["control_maps"].copy()

    with Preprocess(manifest, tiny.folder) as stage:
        with pytest.raises(InvalidRequest, match="pose 'new' is unknown; allowed: waving-01"):
            maps(stage, "new")
        added.mkdir()
        document = json.loads((tiny.folder / "poses/waving-01.json").read_text())
        (added / "new.json").write_text(json.dumps(document))
        first = maps(stage, "new")
        np.testing.assert_array_equal(first, maps(stage, "waving-01"))
        (added / "new.json").write_text(
            json.dumps({**document, "canvas_width": 2 * document["canvas_width"]})
        )
        assert not np.array_equal(maps(stage, "new"), first)
        (added / "waving-01.json").write_text("{")  # the build's own comes first
        np.testing.assert_array_equal(maps(stage, "waving-01"), first)
        assert maps(stage, "waving-01-mirrored").shape == first.shape


ROAD, SKY = (128, 64, 128), (70, 130, 180)
TWO_CLASSES = encoded(Image.fromarray(np.uint8([[SKY] * 30, [ROAD] * 30]).repeat(15, axis=0)))
"""30x30: sky over road."""


def segmented(stage: Preprocess, request_tensors: Any, image: bytes, **control: Any) -> Any:
    asked = json.dumps([{"type": "canny", "image": 0, **control}])
    return stage(request_tensors(prompt="a", images=[image], controls=asked))["control_maps"][0]


def test_classes_are_not_mixed_when_a_map_is_resized(stage: Preprocess, request_tensors: Any) -> None:
    smooth = segmented(stage, request_tensors, TWO_CLASSES)
    exact = segmented(stage, request_tensors, TWO_CLASSES, palette="cityscapes")
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 2
    assert {tuple(colour) for colour in np.unique(exact.reshape(-1, 3), axis=0)} == {ROAD, SKY}


@pytest.mark.parametrize(("resize", "rows"), [("stretch", (0, 96)), ("fit", (16, 80)), ("fill", (0, 96))])
def test_resize_keeps_the_shape_or_not(
    stage: Preprocess, request_tensors: Any, resize: str, rows: tuple[int, int]
) -> None:
    """The picture is 64x96, and the map is square."""
    made = segmented(stage, request_tensors, TWO_CLASSES, palette="cityscapes", resize=resize)
    assert made.shape == (96, 64, 3)
    filled = np.flatnonzero(made.any(axis=(1, 2)))
    assert (filled[0], filled[-1] + 1) == rows
    assert made[47, 32].tolist() == list(SKY)
    assert made[48, 32].tolist() == list(ROAD)


def test_a_controlnet_with_a_palette_gets_its_colours(tiny: Any, request_tensors: Any) -> None:
    manifest = tiny.manifest.model_copy(update={"palettes": {"edges": "ade20k"}})
    with Preprocess(manifest, tiny.folder) as stage:
        made = segmented(stage, request_tensors, TWO_CLASSES)
        assert {tuple(colour) for colour in np.unique(made.reshape(-1, 3), axis=0)} == {
            (140, 140, 140),
            (6, 230, 230),
        }
        with pytest.raises(
            InvalidRequest, match=r"controls\[0\].image: the colour \(200, 30, 40\) at x=0, y=0"
        ):
            segmented(stage, request_tensors, SMALL)
        made = segmented(stage, request_tensors, NOISE, preprocess="canny")
        assert set(np.unique(made)) <= {0, 255}, "edges have no classes"


@pytest.mark.parametrize(
    ("control", "problem"),
    [
        ({"palette": "ade20k", "preprocess": "canny"}, r"controls\[0\].palette: 'ade20k' with preprocess"),
        ({"palette": "coco"}, r"controls\[0\].palette"),
        ({"resize": "crop"}, r"controls\[0\].resize"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(
    stage: Preprocess, request_tensors: Any, control: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        segmented(stage, request_tensors, TWO_CLASSES, **control)


@pytest.mark.parametrize(("key", "value"), [("resize", "fit"), ("palette", "ade20k")])
def test_a_pose_of_the_library_has_neither_shape_nor_colours(
    stage: Preprocess, request_tensors: Any, key: str, value: str
) -> None:
    asked = json.dumps([{"type": "pose", "pose": "waving-01", key: value}])
    with pytest.raises(InvalidRequest, match=rf"controls\[0\].{key}: '{value}' with a pose"):
        stage(request_tensors(prompt="a", controls=asked))


@pytest.fixture(scope="module")
def detecting(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preprocess]:
    """The stage of a deployment with detectors; one of them lacks its file."""
    pose = DetectorSource(
        kind="movenet", file=DETECTORS / "movenet-lightning.onnx", persons=DETECTORS / "nanodet.onnx"
    )
    lacking = DetectorSource(kind="depth", file=tmp_path_factory.mktemp("none") / "midas.onnx")
    manifest = tiny.manifest.model_copy(update={"detectors": {"people": pose, "deep": lacking}})
    with Preprocess(manifest, tiny.folder) as stage:
        yield stage


def asked(request_tensors: Any, photo: Image.Image, **control: Any) -> Any:
    controls = json.dumps([{"image": 0, **control}])
    return request_tensors(prompt="a", images=[encoded(photo)], controls=controls)


def test_a_photograph_becomes_a_pose_of_the_pictures_size(
    detecting: Preprocess, request_tensors: Any
) -> None:
    outputs = detecting(asked(request_tensors, one_person(), type="pose", preprocess="auto", resize="fit"))
    own = PoseDetector(DETECTORS / "movenet-lightning.onnx", DETECTORS / "nanodet.onnx")
    expected = sized(own(one_person(), name="photo"), (64, 96), "fit").map
    np.testing.assert_array_equal(outputs["control_maps"][0], expected)
    metadata = json.loads(outputs["metadata"][0])
    assert metadata["controls"][0]["preprocess"] == "people"
    assert metadata["warnings"] == []


def test_a_photograph_without_people_is_named(detecting: Preprocess, request_tensors: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^images\[0\]: no person was found"):
        detecting(asked(request_tensors, nobody(), type="pose", preprocess="auto"))


def test_weights_that_are_missing_are_named(detecting: Preprocess, request_tensors: Any) -> None:
    with pytest.raises(ConfigError, match=r"detectors\.deep: .*midas\.onnx: no such file"):
        detecting(asked(request_tensors, nobody(), type="canny", preprocess="deep"))


def test_a_map_of_another_type_is_doubted(detecting: Preprocess, request_tensors: Any) -> None:
    outputs = detecting(asked(request_tensors, one_person(), type="edges", preprocess="people"))
    (warning,) = json.loads(outputs["metadata"][0])["warnings"]
    assert warning == "controls[0].preprocess: detector people makes maps of type pose, not canny"
    outputs = detecting(asked(request_tensors, one_person(), type="pose", preprocess="canny"))
    (warning,) = json.loads(outputs["metadata"][0])["warnings"]
    assert warning == "controls[0].preprocess: detector canny makes maps of type canny, not pose"


@pytest.fixture(scope="module")
def large(tiny: Any) -> Iterator[Preprocess]:
    """The stage of pictures of 1024x1024."""
    profiles = tiny.manifest.profiles.model_copy(update={"sizes": ((1024, 1024),)})
    limits = tiny.manifest.limits.model_copy(update={"cost": 10 << 20, "input_pixels": 1 << 20})
    manifest = tiny.manifest.model_copy(update={"profiles": profiles, "limits": limits})
    with Preprocess(manifest, tiny.folder) as stage:
        yield stage


def processor_seconds(*calls: Callable[[], Any], rounds: int = 7) -> list[float]:
    """The shortest of several runs of each call: what else the machine does only makes runs longer."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, times in zip(calls, found, strict=True):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
    return [min(times) for times in found]


@pytest.mark.parametrize("side", [1024, 512], ids=["its size", "smaller"])
def test_a_map_costs_little_more_than_to_decode_and_resize_it(
    large: Preprocess, request_tensors: Any, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """At 1024x1024 that is 10 ms for a drawn pose, and 20 ms for one of half the size, on one core."""
    monkeypatch.setattr(large._maps, "_kept", RecentlyUsed(0))
    pose = draw_pose(large._maps._poses.load("waving-01", field="pose"), width=side, height=side)
    data = encoded(Image.fromarray(pose))
    plain = request_tensors(prompt="a", steps=2, width=1024, height=1024)
    asked = request_tensors(prompt="a", steps=2, width=1024, height=1024, images=[data], controls=POSE)

    def bare() -> Any:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.asarray(image.resize((1024, 1024), Image.Resampling.LANCZOS))

    with_map, without, alone = processor_seconds(lambda: large(asked), lambda: large(plain), bare)
    assert with_map - without < 1.6 * alone + 0.004


def test_a_pose_that_was_drawn_is_not_drawn_again(large: Preprocess, request_tensors: Any) -> None:
    plain = request_tensors(prompt="a", steps=2, width=1024, height=1024)
    controls = json.dumps([{"type": "pose", "pose": "waving-01"}])
    asked = request_tensors(prompt="a", steps=2, width=1024, height=1024, controls=controls)
    large(asked)
    poses = large._maps._poses

    def draw() -> Any:
        return draw_pose(poses.load("waving-01", field="pose"), width=1024, height=1024)

    with_pose, without, drawing = processor_seconds(
        lambda: large(asked), lambda: large(plain), draw, rounds=15
    )
    assert with_pose - without < drawing / 4
