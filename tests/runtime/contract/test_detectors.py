"""What a deployment may say of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from intaglio.contract.config import load_deployment
from intaglio.contract.detectors import DetectorSource

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


def test_a_build_does_not_depend_on_its_detectors() -> None:
    deployment = load_deployment(MINIATURE)
    assert deployment.model_copy(update={"detectors": {}}).digest == deployment.digest


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
