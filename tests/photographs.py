"""Photographs that packages carry. They are read from there; the repository holds none."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

__all__ = ["nobody", "one_person", "photograph", "portraits", "street", "two_people"]

PORTRAITS = ("biden", "obama", "obama2", "obama3", "obama_partial_face", "obama_partial_face2")
"""In tests/test_images of the sdist of face_recognition."""
_SDIST = "face_recognition-1.3.0.tar.gz"
_REQUIREMENT = (
    "face_recognition==1.3.0 --hash=sha256:5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec\n"
)


def photograph(package: str, path: str) -> Image.Image:
    """The RGB picture `path` of an installed package; the test is skipped where that is missing."""
    spec = find_spec(package)
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / path
    if file is None or not file.is_file():
        pytest.skip(f"needs the photograph {path} of the package {package}, which is not installed")
    with Image.open(file) as image:
        return image.convert("RGB")


def one_person() -> Image.Image:
    """A portrait to the hips."""
    return photograph("skimage", "data/astronaut.png")


def nobody() -> Image.Image:
    """A cup of coffee on a table."""
    return photograph("skimage", "data/coffee.png")


def two_people() -> Image.Image:
    """Two photographs of one person each, side by side."""
    other = photograph("skimage", "data/camera.png")
    pixels = np.concatenate([np.asarray(one_person()), np.asarray(other)], axis=1)
    return Image.fromarray(pixels)


def street() -> Image.Image:
    """People on a street, small in the picture."""
    return photograph("ultralytics", "assets/bus.jpg")


@pytest.fixture(scope="session")
def portraits(pytestconfig: pytest.Config) -> dict[str, Image.Image]:
    """Photographs of two politicians by name, one of them five times, from PyPI's face_recognition 1.3.0.

    Their licence is not stated, so they are downloaded, once for all runs. Where that fails, tests are
    skipped.
    """
    cache = pytestconfig.cache
    assert cache is not None
    folder = cache.mkdir("photographs")
    file = folder / _SDIST
    if not file.is_file():
        (folder / "requirements.txt").write_text(_REQUIREMENT)
        # Pip asks an sdist for its metadata; a build without isolation needs nothing else from the index.
        options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", "-q", *options, "-r", "requirements.txt"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if not file.is_file():
            pytest.skip(f"needs the photographs of {_SDIST} from PyPI: {done.stderr.strip()[-200:]}")
    found = {}
    with tarfile.open(file) as archive:
        for name in PORTRAITS:
            member = archive.extractfile(f"face_recognition-1.3.0/tests/test_images/{name}.jpg")
            assert member is not None
            found[name] = Image.open(BytesIO(member.read())).convert("RGB")
    return found
