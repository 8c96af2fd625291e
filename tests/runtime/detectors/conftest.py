"""The repository's detectors, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.pose import PoseDetector

FILES = Path(__file__).parents[3] / "miniature" / "detectors"


@pytest.fixture(scope="session")
def pose_source() -> DetectorSource:
    return DetectorSource(
        kind="movenet", file=FILES / "movenet-lightning.onnx", persons=FILES / "nanodet.onnx"
    )


@pytest.fixture(scope="session")
def pose_detector(pose_source: DetectorSource) -> PoseDetector:
    return PoseDetector(pose_source.file, pose_source.persons)
