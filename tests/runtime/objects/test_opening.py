"""NanoDet on photographs of known objects, beside the same network run by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from intaglio.contract.objects import ObjectNetwork
from intaglio.errors import ConfigError
from intaglio.objects.names import COCO
from intaglio.objects.opening import finder_key, open_finder

from ...photographs import one_person, photograph, street
from ..detectors.conftest import FILES

NANODET = FILES / "nanodet.onnx"


def motorcycle() -> Image.Image:
    return photograph("skimage", "data/motorcycle_left.png")


def by_hand(picture: Image.Image) -> tuple[str, float, list[float]]:
    """Class, score and box of the most certain cell, with nothing of ours."""
    side = 416
    scale = side / max(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = (side - width) // 2, (side - height) // 2
    canvas = Image.new("RGB", (side, side))
    canvas.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    values = np.asarray(canvas, np.float32)[..., ::-1]
    values = (values - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    session = onnxruntime.InferenceSession(NANODET, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = session.run(None, {name: values.transpose(2, 0, 1)[None].astype(np.float32)})
    best: tuple[float, Any] = (0.0, None)
    for cells in (52, 26, 13):
        scores = next(one for one in outputs if one.shape == (1, cells**2, 80))[0]
        sides = next(one for one in outputs if one.shape == (1, cells**2, 44))[0]
        cell, class_id = np.unravel_index(scores.argmax(), scores.shape)
        if scores[cell, class_id] > best[0]:
            votes = np.exp(sides[cell].reshape(4, 11).astype(np.float64))
            reach = (votes / votes.sum(1, keepdims=True)) @ np.arange(11) * (side / cells)
            x, y = (cell % cells + 0.5) * side / cells, (cell // cells + 0.5) * side / cells
            box = [x - reach[0] - left, y - reach[1] - top, x + reach[2] - left, y + reach[3] - top]
            best = float(scores[cell, class_id]), (COCO[class_id], [value / scale for value in box])
    score, (label, box) = best
    return label, score, box


@pytest.mark.parametrize(
    ("photo", "label"), [(one_person, "person"), (motorcycle, "motorcycle"), (street, "bus")]
)
def test_class_and_box_are_those_of_the_network_run_by_hand(photo: Any, label: str) -> None:
    picture = photo()
    objects = open_finder(ObjectNetwork(network=NANODET, confidence=0.35))(picture)
    hand, score, box = by_hand(picture)
    limits = np.array([*picture.size, *picture.size])
    assert objects[0].class_name == hand
    assert objects[0].confidence == pytest.approx(score, rel=1e-5)
    assert objects[0].box == pytest.approx(np.clip(box, 0, limits).tolist(), abs=0.01)
    assert label in {one.class_name for one in objects}


def test_the_key_follows_what_decides_what_is_found(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(COCO))
    plain = ObjectNetwork(network=NANODET)
    changed = [
        ObjectNetwork(network=NANODET, confidence=0.3),
        ObjectNetwork(network=NANODET, overlap=0.3),
        ObjectNetwork(network=NANODET, classes=names),
        ObjectNetwork(network=names),
    ]
    assert len({finder_key(one) for one in (plain, *changed)}) == 5
    assert open_finder(changed[2]).names == COCO
    names.write_text("person\nbus")
    with pytest.raises(ConfigError, match=r"names\.txt: 2 names; NanoDet has 80 classes"):
        open_finder(changed[2])
