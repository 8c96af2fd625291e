"""The request inside an image."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from intaglio.errors import InvalidRequest
from intaglio_client.repetition import metadata_of


def test_an_image_without_metadata_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    PIL.Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(InvalidRequest, match="no intaglio metadata"):
        metadata_of(plain)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        metadata_of(b"not an image")
