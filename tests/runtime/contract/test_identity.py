"""The key `identity` of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.identity import Identity
from intaglio.contract.yaml_files import validated
from intaglio.errors import ConfigError

GOOD: dict[str, Any] = {
    "characters": "characters",
    "detector": "find.onnx",
    "recognition": "embed.onnx",
    "threshold": 0.4,
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"detector": None}, "kind onnx needs detector"),
        ({"models": "buffalo_l"}, "models is no key of kind onnx; take it out"),
        ({"kind": "insightface"}, "detector is no key of kind insightface; take it out"),
        ({"kind": "insightface", "detector": None, "recognition": None}, "kind insightface needs models"),
        ({"threshold": 1.2}, "threshold is a cosine: at most 1"),
        ({"threshold": -0.1, "measure": "euclidean"}, "threshold is a distance .*: at least 0"),
        ({"threshold": float("nan")}, "threshold"),
        ({"characters": None}, "characters"),
        ({"detector_size": 333}, "detector_size"),
    ],
)
def test_what_contradicts_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=rf"a\.yaml: .*{says}"):
        validated(Identity, GOOD | changes, Path("a.yaml"))


def test_places_of_a_folder_of_models(tmp_path: Path) -> None:
    for name in ("det.onnx", "rec.onnx", "notes.txt"):
        (tmp_path / name).touch()
    setting = Identity(characters=tmp_path / "c", kind="insightface", models=tmp_path, threshold=0.4)
    assert sorted(setting.named) == ["models/det.onnx", "models/rec.onnx"]
    placed = setting.placed(Path("faces/1"))
    assert placed.models == Path("faces/1/models")
    assert placed.below(Path("/build")).models == Path("/build/faces/1/models")
    assert placed.below(Path("/build")).characters == tmp_path / "c"
