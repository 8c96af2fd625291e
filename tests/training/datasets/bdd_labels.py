"""Label files in the published layouts of BDD100K, made by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCENES: dict[str, tuple[dict[str, str], list[str]]] = {
    "0000f77c-6257be58": (
        {"weather": "rainy", "scene": "city street", "timeofday": "night"},
        ["car", "car", "car", "person", "traffic light", "traffic light"],
    ),
    "0000f77c-62c2a288": ({"weather": "clear", "scene": "highway", "timeofday": "daytime"}, ["bus", "truck"]),
    "0000f77c-cb820c98": (
        {"weather": "undefined", "scene": "residential", "timeofday": "dawn/dusk"},
        ["bike", "rider"],
    ),
    "0001542f-5ce3cf52": ({"weather": "foggy", "scene": "undefined", "timeofday": "undefined"}, []),
}
"""Name of a picture -> its attributes, and the categories of its boxes by their older names."""
NEWER = {"bike": "bicycle", "motor": "motorcycle", "person": "pedestrian"}
CAPTIONS = {
    "0000f77c-6257be58.jpg": "a dashcam photograph of a city street at night, rainy weather,"
    " with 3 cars, a pedestrian and 2 traffic lights",
    "0000f77c-62c2a288.jpg": "a dashcam photograph of a highway by day, clear weather,"
    " with a truck and a bus",
    "0000f77c-cb820c98.jpg": "a dashcam photograph of a residential street at dawn or dusk,"
    " with a bicycle and a rider",
    "0001542f-5ce3cf52.jpg": "a dashcam photograph, foggy weather",
}
"""What the packaged template makes of them."""


def box(identifier: int, category: str) -> dict[str, Any]:
    return {
        "id": identifier,
        "category": category,
        "attributes": {"occluded": False, "truncated": False, "trafficLightColor": "none"},
        "box2d": {"x1": 45.24 + identifier, "y1": 254.53, "x2": 357.8, "y2": 487.9},
    }


LANE = {
    "id": 90,
    "category": "lane",
    "attributes": {"laneDirection": "parallel", "laneStyle": "solid", "laneType": "road curb"},
    "poly2d": [{"vertices": [[503.67, 373.13], [544.79, 332.83]], "types": "LL", "closed": False}],
}
AREA = {"id": 91, "category": "drivable area", "attributes": {"areaType": "direct"}, "poly2d": []}


def older_frames() -> list[dict[str, Any]]:
    """As `bdd100k_labels_images_train.json`: boxes, lanes and areas of a picture in one list."""
    return [
        {
            "name": f"{name}.jpg",
            "attributes": attributes,
            "timestamp": 10000,
            "labels": [*(box(i, category) for i, category in enumerate(boxes)), LANE, AREA],
        }
        for name, (attributes, boxes) in SCENES.items()
    ]


def newer_frames() -> list[dict[str, Any]]:
    """As `det_train.json`: Scalabel's frames, in which a picture without boxes has no labels."""
    frames: list[dict[str, Any]] = []
    for name, (attributes, boxes) in SCENES.items():
        frame: dict[str, Any] = {
            "name": f"{name}.jpg",
            "url": None,
            "videoName": None,
            "attributes": attributes,
            "timestamp": 10000,
            "frameIndex": None,
            "labels": [box(i, NEWER.get(category, category)) for i, category in enumerate(boxes)] or None,
        }
        frames.append(frame)
    return frames


def document_of(name: str) -> dict[str, Any]:
    """As `labels/100k/train/NAME.json`: a file a picture."""
    attributes, boxes = SCENES[name]
    lane = {"category": "lane/road curb", "id": 90, "attributes": {}, "poly2d": [[503.67, 373.13, "L"]]}
    objects = [*(box(i, category) for i, category in enumerate(boxes)), lane]
    return {"name": name, "frames": [{"timestamp": 10000, "objects": objects}], "attributes": attributes}


def write_layout(layout: str, folder: Path) -> Path:
    """Write the labels of `SCENES` in one of the layouts; the file or folder to name."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "pictures":
        for name in SCENES:
            (folder / f"{name}.json").write_text(json.dumps(document_of(name)))
        return folder
    documents: dict[str, Any] = {
        "older": older_frames(),
        "newer": newer_frames(),
        "scalabel": {"frames": newer_frames(), "groups": None, "config": {"categories": [{"name": "car"}]}},
        "config first": {"config": {"frames": 4}, "frames": newer_frames()},
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(documents[layout], indent=1))
    return path
