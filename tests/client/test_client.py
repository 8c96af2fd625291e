"""The client without a server."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from intaglio.errors import InvalidRequest, Unavailable
from intaglio_client import Client
from intaglio_client.client import metadata_of


def test_nobody_there() -> None:
    with Client("127.0.0.1:9", deadline=5) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*intaglio serve"):
            client.generate("a fox")


def test_an_image_without_metadata_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    PIL.Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(InvalidRequest, match="no intaglio metadata"):
        metadata_of(plain)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        metadata_of(b"not an image")
