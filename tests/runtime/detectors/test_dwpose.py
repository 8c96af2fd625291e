"""People with hands and faces. The graphs know where the keypoints are; NanoDet is the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.dwpose import DwposeDetector
from intaglio.detectors.opening import choose_detector
from intaglio.detectors.sizing import sized
from intaglio.detectors.yolox import YoloX
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.openpose import draw_pose

from ...photographs import nobody, two_people
from ..objects.graphs import write_yolo
from .conftest import FILES
from .graphs import simcc_rows, write_simcc, write_spot_finder

SIZE = (48, 64)
BOXES = ((60.0, 40.0, 180.0, 200.0), (330.0, 0.0, 420.0, 160.0))
"""Of two people in a picture of 400 x 200 pixels; both reach to a border."""
COUNTS = {"body": 18, "left hand": 21, "right hand": 21, "face": 68}


def peaks(count: int = 133, score: float = 0.8) -> Any:
    """Keypoint k is at (k mod 90, k mod 120). Every fifth is not seen, and neither is the left shoulder."""
    places = np.arange(count)
    scores = np.where(places % 5 == 4, 0.29, score)
    scores[5] = 0.1
    return np.stack([places % 90, scores, places % 120, scores + 0.1], axis=1)


def finder(path: Path, *boxes: tuple[float, ...]) -> Path:
    """YOLOX that finds `boxes` of a picture of 400 x 200 in its 64 x 64, the first one most certainly."""
    rows = np.zeros((1, 84, 85), np.float32)
    for index, box in enumerate(boxes):
        left, top, right, bottom = np.array(box) * 64 / 400
        cell = 30 + 20 * index
        row, column = divmod(cell, 8)
        middle = ((left + right) / 16 - column, (top + bottom) / 16 - row)
        rows[0, cell, :4] = (*middle, np.log((right - left) / 8), np.log((bottom - top) / 8))
        rows[0, cell, 4:6] = 0.95 - 0.2 * index, 1.0
    return write_yolo(path, rows)


def source(folder: Path, *boxes: tuple[float, ...], count: int = 133, **keys: Any) -> DetectorSource:
    file = write_simcc(folder / "simcc.onnx", peaks(count), SIZE)
    persons = finder(folder / "yolox.onnx", *boxes)
    return DetectorSource.model_validate({"kind": "dwpose", "file": file, "persons": persons, **keys})


def plain(box: tuple[float, ...], count: int = 133) -> dict[str, Any]:
    """[keypoints, 3] by part, computed one at a time; what is not seen is zero."""
    width, height = 1.25 * (box[2] - box[0]), 1.25 * (box[3] - box[1])
    width, height = max(width, height * 48 / 64), max(height, width * 64 / 48)
    left, top = (box[0] + box[2] - width) / 2, (box[1] + box[3] - height) / 2
    coco = []
    for x, x_score, y, y_score in peaks(count):
        coco.append((left + x / 2 * width / 48, top + y / 2 * height / 64, min(x_score, y_score)))
    neck = [(coco[5][axis] + coco[6][axis]) / 2 for axis in range(2)]
    names = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    parts = {
        "body": [(*neck, min(coco[5][2], coco[6][2])) if one is None else coco[one] for one in names],
        "face": coco[23:91],
        "left hand": coco[91:112],
        "right hand": coco[112:133],
    }
    return {
        name: np.array([point if point[2] >= 0.3 else (0, 0, 0) for point in part])
        for name, part in parts.items()
    }


def test_two_people_are_read_and_drawn_as_bodies(tmp_path: Path) -> None:
    detection = DwposeDetector(source(tmp_path, *BOXES))(Image.new("RGB", (400, 200)), name="a.png")
    expected = np.array([plain(box)["body"] for box in BOXES])
    assert detection.people is not None
    np.testing.assert_allclose(detection.people, expected, atol=1e-3)
    assert (expected[:, 1] == 0).all(), "a shoulder is not seen, so the neck is not"
    drawn = draw_pose(detection.people / (400, 200, 1), width=400, height=200)
    np.testing.assert_array_equal(detection.map, drawn)


@pytest.mark.parametrize("keys", [{"hands": True}, {"face": True}, {"hands": True, "face": True}])
def test_hands_and_faces_are_read_where_they_are_wanted(tmp_path: Path, keys: dict[str, bool]) -> None:
    photo = Image.new("RGB", (400, 200))
    detection = DwposeDetector(source(tmp_path, *BOXES, **keys))(photo, name="a.png")
    assert detection.people is not None
    for box, person in zip(BOXES, detection.people, strict=True):
        ends = np.cumsum(list(COUNTS.values()))
        parts = dict(zip(COUNTS, np.split(person, ends[:-1]), strict=True))
        for name, expected in plain(box).items():
            wanted = name == "body" or keys.get("face" if name == "face" else "hands", False)
            np.testing.assert_allclose(parts[name], expected if wanted else 0 * expected, atol=1e-3)
    half = sized(detection, (200, 100), "stretch")
    assert half.people is not None
    np.testing.assert_allclose(half.people[..., :2], detection.people[..., :2] / 2)


def test_a_network_of_bodies_reads_the_same_bodies(tmp_path: Path) -> None:
    photo = Image.new("RGB", (400, 200))
    people = DwposeDetector(source(tmp_path, *BOXES, count=17)).people(photo)
    np.testing.assert_allclose(people, [plain(box, 17)["body"] for box in BOXES], atol=1e-3)
    for key in ("hands", "face"):
        wanted = source(tmp_path, *BOXES, count=17, **{key: True})
        with pytest.raises(ConfigError, match=rf"bodies alone, 17 keypoints; take {key} out, or .*133"):
            DwposeDetector(wanted)


def test_nobody_is_an_error_that_names_the_picture(tmp_path: Path) -> None:
    photo = Image.new("RGB", (400, 200))
    with pytest.raises(InvalidRequest, match=r"^a\.png: no person was found; allowed: a picture that"):
        DwposeDetector(source(tmp_path))(photo, name="a.png")
    # Four keypoints are seen in the box.
    few = peaks()
    few[4:, 1] = 0.2
    few[:4, 1] = 0.9
    boxed = source(tmp_path, *BOXES)
    write_simcc(tmp_path / "simcc.onnx", few, SIZE)
    with pytest.raises(InvalidRequest, match=r"^a\.png: no person was found"):
        DwposeDetector(boxed)(photo, name="a.png")


def test_one_person_in_two_boxes_is_one(tmp_path: Path) -> None:
    """The boxes overlap by 0.39, so YOLOX takes them for two people. What is read in both is the same."""
    boxes = ((60.0, 40.0, 180.0, 200.0), (100.0, 60.0, 240.0, 190.0))
    pixels = np.zeros((200, 400, 3), np.uint8)
    for channel, (x, y) in enumerate([(120, 80), (160, 110), (130, 170)]):
        pixels[y - 4 : y + 5, x - 4 : x + 5, channel] = 255
    seen = source(tmp_path, *boxes)
    write_spot_finder(tmp_path / "simcc.onnx", 133, SIZE)
    assert seen.persons is not None
    assert len(YoloX(seen.persons).people(Image.fromarray(pixels))) == 2
    (person,) = DwposeDetector(seen).people(Image.fromarray(pixels))
    np.testing.assert_allclose(person[0, :2], (120, 80), atol=5)


def test_without_a_finder_the_whole_picture_is_one_person(tmp_path: Path) -> None:
    alone = source(tmp_path).model_copy(update={"persons": None})
    people = DwposeDetector(alone).people(Image.new("RGB", (400, 200)))
    np.testing.assert_allclose(people, [plain((0.0, 0.0, 400.0, 200.0))["body"]], atol=1e-3)


def test_nanodet_finds_the_people_too(tmp_path: Path) -> None:
    seen = source(tmp_path).model_copy(update={"persons": FILES / "nanodet.onnx"})
    detector = choose_detector("pose", {"pose": seen}).open()
    detection = detector(two_people(), name="two.png")
    assert detection.people is not None
    assert sorted(person[:, 0].max() > 512 for person in detection.people) == [False, True]
    with pytest.raises(InvalidRequest, match=r"coffee\.png: no person was found"):
        detector(nobody(), name="coffee.png")


@pytest.mark.parametrize("number", [np.float32, np.float16])
def test_the_shapes_of_the_published_files_are_known(tmp_path: Path, number: Any) -> None:
    """dw-ll_ucoco_384.onnx and yolox_l.onnx, and conversions of them to half precision."""
    rows = (row.astype(number) for row in simcc_rows(peaks(), (288, 384)))
    file = write_yolo(tmp_path / "dw-ll_ucoco_384.onnx", *rows, given=("batch", 3, 384, 288))
    cells = np.zeros((1, 8400, 85), number)
    cells[0, 8400 - 201, :6] = (0.5, 0.5, 2.0, 2.0, 1.0, 1.0)
    persons = write_yolo(tmp_path / "yolox_l.onnx", cells, given=(1, 3, 640, 640))
    detector = DwposeDetector(DetectorSource(kind="dwpose", file=file, persons=persons, face=True))
    assert detector.people(Image.new("RGB", (640, 480))).shape == (1, 128, 3)
