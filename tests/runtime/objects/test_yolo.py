"""Every layout of the YOLO family, from graphs whose objects are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.objects import ObjectNetwork
from intaglio.detectors.onnx_network import Network
from intaglio.errors import ConfigError
from intaglio.objects.opening import open_finder

from .graphs import FOUND, NAMES, SIDE, end_to_end, write_yolo, yolov5, yolov8

LAYOUTS = {"yolov8": yolov8, "yolov5": yolov5, "end-to-end": end_to_end}
KEPT = {
    # The other class in the place of the bus stays; the second bus goes.
    "yolov8": (0.9, 0.8, 0.6, 0.3),
    "yolov5": (0.9, 0.8, 0.6, 0.3),
    "end-to-end": (0.9, 0.8, 0.3),
}


def found(path: Path, shape: tuple[int, int] = (SIDE, SIDE), **keys: Any) -> list[Any]:
    finder = open_finder(ObjectNetwork(network=path, **keys))
    return list(finder(Image.new("RGB", shape, "grey")))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_are_those_of_the_graph(tmp_path: Path, layout: str, dtype: Any) -> None:
    path = write_yolo(tmp_path / "a.onnx", LAYOUTS[layout]().astype(dtype))
    objects = found(path)
    assert [one.confidence for one in objects] == pytest.approx(KEPT[layout], abs=1e-3)
    known = {round(one.confidence, 1): one for one in objects}
    for class_id, score, *box in FOUND:
        assert (known[score].class_id, known[score].class_name) == (class_id, NAMES[class_id])
        assert known[score].box == pytest.approx(box, abs=0.05)
    assert len(found(path, confidence=0.85)) == 1


@pytest.mark.parametrize("size", [(SIDE, SIDE // 2), (SIDE // 2, SIDE), (4 * SIDE, 3 * SIDE)])
def test_boxes_are_in_pixels_of_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    """A picture of another shape lies in the middle of the input; a box ends at its edge."""
    path = write_yolo(tmp_path / "a.onnx", end_to_end())
    scale = SIDE / max(size)
    left, top = (SIDE - size[0] * scale) / 2, (SIDE - size[1] * scale) / 2
    expected = (np.array(FOUND[0][2:]) - [left, top, left, top]) / scale
    expected = expected.clip(0, [*size, *size])
    assert found(path, size)[0].box == pytest.approx(expected.tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("size", "inside"),
    [
        ((SIDE, SIDE // 2), (0, 16, SIDE, 48)),
        ((SIDE // 2, SIDE), (16, 0, 48, SIDE)),
        # The odd pixel of the border lies at the bottom, or on the right.
        ((SIDE, SIDE - 1), (0, 0, SIDE, SIDE - 1)),
        ((2 * (SIDE - 3), 2 * SIDE), (1, 0, SIDE - 2, SIDE)),
    ],
)
def test_the_input_is_what_ultralytics_makes_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], inside: tuple[int, ...]
) -> None:
    """Red, green and blue from 0 to 1, in the middle of a grey of 114."""
    given = []
    call = Network.__call__

    def watched(self: Network, values: Any) -> Any:
        given.append(values[0])
        return call(self, values)

    monkeypatch.setattr(Network, "__call__", watched)
    finder = open_finder(ObjectNetwork(network=write_yolo(tmp_path / "a.onnx", end_to_end())))
    finder(Image.new("RGB", size, (255, 0, 51)))
    expected = np.full((3, SIDE, SIDE), 114 / 255)
    left, top, right, bottom = inside
    expected[:, top:bottom, left:right] = np.array([1, 0, 0.2])[:, None, None]
    np.testing.assert_allclose(given, [expected], atol=1e-6)


def test_the_most_certain_of_too_many_objects_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.objects.yolo._MOST", 2)
    for name, layout in LAYOUTS.items():
        objects = found(write_yolo(tmp_path / f"{name}.onnx", layout()))
        assert [one.confidence for one in objects] == pytest.approx([0.9, 0.8])


def test_a_box_outside_the_picture_is_none(tmp_path: Path) -> None:
    """The smallest object lies in the border above a wide picture."""
    path = write_yolo(tmp_path / "a.onnx", end_to_end())
    assert [one.confidence for one in found(path, (SIDE, SIDE // 2))] == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_that_the_file_leaves_open(tmp_path: Path, layout: str) -> None:
    """Height and width come from the metadata, else from `size`; the layout from the number of classes."""
    output = LAYOUTS[layout]()
    open_input: tuple[Any, ...] = ("batch", 3, "height", "width")
    shown = {"yolov8": ("batch", 7, "n"), "yolov5": ("batch", "n", 8), "end-to-end": ("batch", "n", 6)}[
        layout
    ]
    said = write_yolo(tmp_path / "a.onnx", output, given=open_input, shown=shown, imgsz=f"[{SIDE}, {SIDE}]")
    unsaid = write_yolo(tmp_path / "b.onnx", output, given=open_input, shown=shown)
    for objects in (found(said), found(unsaid, size=SIDE)):
        assert [one.confidence for one in objects] == pytest.approx(KEPT[layout])


def test_an_input_that_is_not_square(tmp_path: Path) -> None:
    places = sum((SIDE // one) * (2 * SIDE // one) for one in (8, 16, 32))
    output = np.zeros((1, 4 + len(NAMES), places), np.float32)
    output[0, :, 3] = [64, 32, 20, 10, 0, 0.9, 0]
    path = write_yolo(tmp_path / "a.onnx", output, given=(1, 3, SIDE, 2 * SIDE))
    (one,) = found(path, (2 * SIDE, SIDE))
    assert one.box == pytest.approx([54, 27, 74, 37])
    assert one.class_name == "traffic light"


def test_names_come_from_a_file_first(tmp_path: Path) -> None:
    path = write_yolo(tmp_path / "a.onnx", end_to_end())
    (tmp_path / "names.txt").write_text("man\nlamp\n\ncoach\n")
    (tmp_path / "data.yaml").write_text("names:\n  0: man\n  1: lamp\n  2: coach\n")
    (tmp_path / "list.yaml").write_text("names: [man, lamp, coach]\n")
    for name in ("names.txt", "data.yaml", "list.yaml"):
        assert found(path, classes=tmp_path / name)[0].class_name == "coach"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no names": ({"names": ""}, "nothing says what its classes are called; give a file of classes"),
    "names that are none": ({"names": "exec()"}, "its metadata names no classes; give a file of classes"),
    "names with a gap": ({"names": "{0: 'a', 2: 'b'}"}, "class 1 has no name"),
    "equal names": ({"names": "['a', 'a', 'b']"}, "two classes are called 'a'"),
    "other classes": ({"names": "['a', 'b']"}, r"its output is \[1, 7, 84\], with 2 classes"),
    "an unlike input": ({"given": (1, 1, SIDE, SIDE)}, r"its input is \[1, 1, 64, 64\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    keys, says = WRONG[name]
    path = write_yolo(tmp_path / "a.onnx", yolov8(), **keys)
    with pytest.raises(ConfigError, match=rf"a\.onnx: .*{says}"):
        found(path)


def test_keys_that_contradict_the_file_are_named(tmp_path: Path) -> None:
    path = write_yolo(tmp_path / "a.onnx", yolov8())
    with pytest.raises(ConfigError, match=r"its output \[1, 7, 84\] is not yolov5 of 3 classes"):
        found(path, layout="yolov5")
    with pytest.raises(ConfigError, match="its input is 64x64; take size 96 out"):
        found(path, size=96)
    masks = write_yolo(tmp_path / "b.onnx", yolov8(), yolov8())
    with pytest.raises(ConfigError, match=r"it has 2 outputs \(a network of masks"):
        found(masks)
    unknown = end_to_end()
    unknown[0, 0, 5] = 7
    with pytest.raises(ConfigError, match="it found a class beyond the 3 that have names"):
        found(write_yolo(tmp_path / "c.onnx", unknown))


def test_a_number_of_places_that_nobody_expects(tmp_path: Path) -> None:
    """Grids of other strides: `auto` refuses what it does not know, a stated layout is believed."""
    path = write_yolo(tmp_path / "a.onnx", yolov8()[..., :-3])
    with pytest.raises(ConfigError, match=r"its output is \[1, 7, 81\], with 3 classes"):
        found(path)
    assert len(found(path, layout="yolov8")) == 4


def test_layouts_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    """One class and an unknown number of places: six numbers a place are YOLOv5 or end-to-end."""
    output = end_to_end()
    output[..., 5] = 0
    path = write_yolo(tmp_path / "a.onnx", output, shown=(1, "n", 6), names="{0: 'face'}")
    with pytest.raises(ConfigError, match="may be yolov5 or end-to-end; say layout"):
        found(path)
    assert len(found(path, layout="end-to-end")) == 3
    fixed = write_yolo(tmp_path / "b.onnx", output, names="{0: 'face'}")
    assert len(found(fixed)) == 3, "300 places are no grid's"
