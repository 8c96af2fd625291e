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
    placed = source.placed(Path("detectors/ab"))
    assert placed.named == {name: Path("detectors/ab", name) for name in ("file/m.onnx", "persons/n.onnx")}
    weights = DetectorSource(kind="controlnet-aux", detector="lineart", folder=Path("/w"))
    assert weights.files == (Path("/w/sk_model.pth"), Path("/w/sk_model2.pth"))
    assert weights.placed(Path("d")).files == (Path("d/folder/sk_model.pth"), Path("d/folder/sk_model2.pth"))


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({"kind": "movenet", "file": "m.onnx"}, "pose"),
        (
            {"kind": "dwpose", "file": "dw-ll_ucoco_384.onnx", "persons": "yolox_l.onnx", "hands": True},
            "pose",
        ),
        ({"kind": "controlnet-aux", "detector": "hed", "hub": "lllyasviel/Annotators"}, "softedge"),
        ({"kind": "controlnet-aux", "detector": "hed", "folder": "w", "type": "scribble"}, "scribble"),
        ({"kind": "controlnet-aux", "detector": "lineart-standard"}, "lineart"),
        ({"kind": "transformers", "folder": "w", "type": "segmentation"}, "segmentation"),
    ],
)
def test_the_type_of_the_maps(values: dict[str, Any], made: str) -> None:
    source = DetectorSource.model_validate(values)
    assert source.type == made
    assert DetectorSource.model_validate(source.model_dump(mode="json")) == source


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
    assert detector_named("pose", {"whole": "pose", "bodies": "pose"}, field="f") == "bodies"
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
        ({"kind": "openpose"}, "kind"),
        ({"kind": "movenet", "hands": True}, "hands is no key of kind movenet"),
        ({"kind": "dwpose", "near": "small"}, "near is no key of kind dwpose"),
        ({"kind": "dwpose", "face": "some"}, "face"),
        (
            {"kind": "controlnet-aux", "detector": "hed", "folder": "w"},
            "file is no key of kind controlnet-aux",
        ),
        ({"kind": "depth", "std": [0, 1, 1]}, "std"),
        ({"kind": "depth", "size": 0}, "size"),
    ],
)
def test_keys_of_another_kind_and_impossible_values_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        DetectorSource.model_validate({"file": "a.onnx", **values})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"kind": "movenet"}, "kind movenet needs file"),
        ({"kind": "dwpose", "persons": "yolox_l.onnx"}, "kind dwpose needs file"),
        ({"kind": "controlnet-aux", "folder": "w", "type": "pose"}, "kind controlnet-aux needs detector"),
        ({"kind": "controlnet-aux", "detector": "hed"}, "exactly one of folder and hub"),
        ({"kind": "controlnet-aux", "detector": "hed", "hub": "a/b", "folder": "w"}, "exactly one of folder"),
        ({"kind": "controlnet-aux", "detector": "dwpose", "folder": "w"}, "detector"),
        ({"kind": "transformers", "folder": "w"}, "kind transformers needs type"),
        ({"kind": "transformers", "type": "depth"}, "exactly one of folder and hub"),
        (
            {"kind": "transformers", "type": "depth", "folder": "w", "revision": "main"},
            "revision goes with hub",
        ),
    ],
)
def test_what_a_kind_needs(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        DetectorSource.model_validate(values)
