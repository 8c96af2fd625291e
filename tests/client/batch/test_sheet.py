"""The contact sheet shows every picture, and nothing that a prompt says does anything in it."""

from __future__ import annotations

import html.parser
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import PIL.Image

from intaglio_client.batch.folder import BatchFolder
from intaglio_client.batch.manifest import KEYS, Record
from intaglio_client.batch.sheet import page_of, write_missing_thumbs
from intaglio_client.batch.spec import BatchSpec

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)> \"' --> &amp;"


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and the text of the page without its script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else self._raw

    def handle_endtag(self, tag: str) -> None:
        self._raw = "" if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def record(index: int, **values: Any) -> Record:
    said = {
        **dict.fromkeys(KEYS, ""),
        "index": index,
        "file": f"accepted/00000{index}-ä #1.png",
        "accepted": True,
        "scores": {"sharpness": {"variance": 12.5 * index}, "duplicates": {"hash": "ff", "distance": 3}},
        "inputs": {"prompt": "a person", "seed": index},
    }
    return {**said, **values}


def folder(path: Path) -> BatchFolder:
    return BatchFolder(path, BatchSpec(inputs={"prompt": "a", "seed": 1}))


def test_each_picture_has_its_verdict_scores_and_original(tmp_path: Path) -> None:
    rejected = record(1, accepted=False, reason="sharpness: 12.5 is below 50")
    page = Elements(page_of("walk", [record(0), rejected], folder(tmp_path)))
    figures = page.all("figure")
    assert [figure["class"] for figure in figures] == ["accepted", "rejected"]
    assert json.loads(figures[1]["data-scores"] or "") == {
        "sharpness.variance": 12.5,
        "duplicates.distance": 3,
    }
    assert [unquote(link["href"] or "") for link in page.all("a")] == [
        "accepted/000000-ä #1.png",
        "accepted/000001-ä #1.png",
    ]
    assert "#" not in (page.all("a")[0]["href"] or ""), "it would be a place in the page"
    assert [image["src"] for image in page.all("img")] == ["thumbs/000000.webp", "thumbs/000001.webp"]
    assert "sharpness: 12.5 is below 50" in page.text
    assert "walk: 2 pictures, 1 accepted" in page.text
    assert page.text.count("sharpness.variance") == 3, "to sort by, and at each picture"


def test_text_of_a_request_is_only_text(tmp_path: Path) -> None:
    inputs = {"prompt": HOSTILE, "seed": 1, "pose": HOSTILE}
    hostile = record(0, inputs=inputs, reason=HOSTILE, scores={HOSTILE: {HOSTILE: 1.0}})
    clean = Elements(page_of("walk", [record(0, scores={"a": {"b": 1.0}}, reason="x")], folder(tmp_path)))
    page = Elements(page_of(HOSTILE, [hostile], folder(tmp_path)))
    tags = [tag for tag, _ in page.found]
    assert tags == [tag for tag, _ in clean.found], "no element more than in a harmless page"
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert page.all("img")[0]["alt"] == HOSTILE
    assert page.text.count(HOSTILE) >= 4


def test_an_empty_batch_has_a_page(tmp_path: Path) -> None:
    assert "0 pictures, 0 accepted" in page_of("walk", [], folder(tmp_path))


def test_thumbs_that_are_missing_are_made(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    PIL.Image.fromarray(np.zeros((1000, 500, 3), np.uint8)).save(encoded, "PNG")
    (tmp_path / "a.png").write_bytes(encoded.getvalue())
    write_missing_thumbs([record(0, file="a.png")], folder(tmp_path))
    assert PIL.Image.open(tmp_path / "thumbs/000000.webp").size == (112, 224)
