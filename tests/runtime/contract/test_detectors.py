"""What a deployment may say of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from intaglio.contract.config import load_deployment
from intaglio.contract.detectors import DetectorSource, detector_named
from intaglio.errors import ConfigError, InvalidRequest

MINIATURE = Path(__file__).parents[3] / "configs/miniature.yaml"


def test_the_miniature_names_files_that_are_there() -> None:
    detectors = load_deployment(MINIATURE).detectors
    assert detectors["pose"].type == "pose"
    assert all(path.is_file() for source in detectors.values() for path in source.files)


def test_a_deployment_is_read_back_as_it_was_written() -> None:
    """A build hands it to its workers in this form."""
    deployment = load_deployment(MINIATURE)
    written = deployment.model_dump(mode="json")
    assert type(deployment).model_validate(written).detectors == deployment.detectors


def test_a_build_holds_its_detectors() -> None:
    deployment = load_deployment(MINIATURE)
    assert deployment.model_copy(update={"detectors": {}}).digest != deployment.digest


def test_files_get_other_places() -> None:
    source = DetectorSource(kind="movenet", file=Path("file/m.onnx"), persons=Path("/elsewhere/n.onnx"))
    assert source.below(Path("/build")).files == (Path("/build/file/m.onnx"), Path("/elsewhere/n.onnx"))
    assert source.moved({"file": Path("a.onnx")}).named == {"file": Path("a.onnx"), "persons": source.persons}


@pytest.mark.parametrize("name", ["auto", "none"])
def test_a_word_of_requests_is_no_id(name: str, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    values = yaml.safe_load(MINIATURE.read_text()) | {
        "detectors": {name: {"kind": "depth", "file": "d.onnx"}}
    }
    config.write_text(yaml.safe_dump({key: values[key] for key in ("base", "profiles", "detectors")}))
    with pytest.raises(ConfigError, match=f"{name} has a meaning of its own in requests"):
        load_deployment(config)


def test_a_detector_is_found_by_id_then_by_type() -> None:
    types = {"people": "pose", "pose": "depth", "edges": "canny"}
    assert detector_named("pose", types, field="f") == "pose"
    assert detector_named("depth", types, field="f") == "pose"
    assert detector_named("canny", types, field="f") == "edges"
    assert detector_named("canny", {}, field="f") == "canny"
    with pytest.raises(
        InvalidRequest, match=r"^f: this deployment has no detector 'hed'; allowed: canny, people,"
    ):
        detector_named("hed", types, field="f")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"kind": "movenet", "size": 224}, "size is no key of kind movenet"),
        ({"kind": "depth", "persons": "n.onnx"}, "persons is no key of kind depth"),
        ({"kind": "dwpose"}, "kind"),
        ({"kind": "depth", "std": [0, 1, 1]}, "std"),
        ({"kind": "depth", "size": 0}, "size"),
    ],
)
def test_keys_of_another_kind_and_impossible_values_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        DetectorSource.model_validate({"file": "a.onnx", **values})
