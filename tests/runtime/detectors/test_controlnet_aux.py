"""Detectors of controlnet_aux beside the package's own results.

Nobody's trained weights are here, so seeded ones are saved as the package's files.
"""

# ruff: noqa: PLC0415  (the package is an extra)

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from intaglio.contract.detectors import AUX_DETECTORS, DetectorSource
from intaglio.detectors import controlnet_aux as adapter
from intaglio.detectors.controlnet_aux import AuxMapDetector, AuxPoseDetector
from intaglio.errors import ConfigError, InvalidRequest, MissingExtra

NEEDS_PACKAGE = pytest.mark.skipif(
    find_spec("controlnet_aux") is None, reason="needs the package controlnet-aux, which is not installed"
)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8))
SIDE = 128


@pytest.fixture(scope="module")
def package() -> Any:
    """The package. A torchvision that was built for cards lacks two operators beside a torch that was not."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import controlnet_aux

    return controlnet_aux


def source(folder: Path | None, detector: str) -> DetectorSource:
    return DetectorSource.model_validate(
        {"kind": "controlnet-aux", "detector": detector, "folder": folder, "size": SIDE}
    )


def expected(theirs: Any, **sizes: int) -> Any:
    shown = theirs(PHOTO, output_type="pil", detect_resolution=SIDE, **sizes).convert("RGB")
    return np.asarray(shown.resize(PHOTO.size, Image.Resampling.BILINEAR))


@NEEDS_PACKAGE
def test_every_detector_of_maps_is_a_class_of_the_package(package: Any) -> None:
    assert set(adapter._CLASSES) | {"openpose"} == set(AUX_DETECTORS)
    assert all(hasattr(package, name) for name in adapter._CLASSES.values())


@NEEDS_PACKAGE
def test_a_detector_without_weights(package: Any) -> None:
    found = AuxMapDetector(source(None, "lineart-standard"))(PHOTO, name="a")
    np.testing.assert_array_equal(found.map, expected(package.LineartStandardDetector()))
    assert found.people is None


@NEEDS_PACKAGE
def test_seeded_hed_is_the_packages_own(package: Any, tmp_path: Path) -> None:
    from controlnet_aux.hed import ControlNetHED_Apache2

    torch.manual_seed(0)
    torch.save(ControlNetHED_Apache2().state_dict(), tmp_path / "ControlNetHED.pth")
    found = AuxMapDetector(source(tmp_path, "hed"))(PHOTO, name="a")
    theirs = package.HEDdetector.from_pretrained(str(tmp_path))
    np.testing.assert_array_equal(found.map, expected(theirs, image_resolution=SIDE))
    assert found.map.std() > 0


@NEEDS_PACKAGE
def test_missing_and_foreign_weights_are_named(package: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sk_model\.pth: no such file; put the weights of lineart there"):
        AuxMapDetector(source(tmp_path, "lineart"))
    for name in AUX_DETECTORS["lineart"][1]:
        torch.save({"another": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ConfigError, match=r"does not load: .*"):
        AuxMapDetector(source(tmp_path, "lineart"))
    (tmp_path / "sk_model.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="does not load"):
        AuxMapDetector(source(tmp_path, "lineart"))


@NEEDS_PACKAGE
def test_keypoints_of_openpose(package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network would be 209 MB; what it gives is given here, and all that follows is the package's."""
    from controlnet_aux.open_pose.body import Body

    candidate = np.array([[8.0 * n, 4.0 * n, 0.9, n] for n in range(17)])
    subset = np.array([[*range(17), -1, 15.0, 17.0]])
    people = [subset]
    monkeypatch.setattr(Body, "__init__", lambda body, path: None)
    monkeypatch.setattr(Body, "__call__", lambda body, picture: (candidate, people[0]))
    (tmp_path / "body_pose_model.pth").touch()
    detector = AuxPoseDetector(source(tmp_path, "openpose"))
    photo = Image.new("RGB", (256, 128))
    found = detector(photo, name="a").people
    assert found is not None
    np.testing.assert_allclose(found[0, :17, :2], candidate[:, :2], atol=1e-6)
    assert found[0, :, 2].tolist() == [1.0] * 17 + [0.0]
    people[0] = subset[:0]
    with pytest.raises(InvalidRequest, match=r"^a\.png: no person was found"):
        detector(photo, name="a.png")


@pytest.mark.skipif(find_spec("controlnet_aux") is not None, reason="the package is installed")
def test_the_extra_is_named_where_the_package_is_missing() -> None:
    with pytest.raises(
        MissingExtra, match=r"controlnet_aux is not installed; run: pip install 'intaglio\[con"
    ):
        AuxMapDetector(source(None, "lineart-standard"))
