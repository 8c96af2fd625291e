"""Faces through the real server: the page about characters, verdicts, bad requests, and what is forgotten."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from PIL import ImageEnhance

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.filters import IdentityFilter
from intaglio.contract.models import IDENTITY
from intaglio.errors import InvalidRequest
from intaglio.faces.enrolled import EnrolledFolder
from intaglio.faces.likeness import judged
from intaglio.faces.opening import open_reader
from intaglio.faces.served import criterion_of
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client, ServerError
from intaglio_client.connections.requests import Request
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.servers import FilterServers
from intaglio_client.filters.verdict import Candidate
from intaglio_export.build import BuildOptions, build_deployment

from ..pages import blocks
from ..photographs import nobody, one_person, portraits
from .conftest import REPOSITORY, Silent
from .test_pages import run_blocks

__all__ = ["portraits"]
pytestmark = pytest.mark.slow
PAGE = "docs/characters.md"


@pytest.fixture(scope="module")
def folder(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations whose miniature has the first block of the page, its build, and photographs."""
    folder = tmp_path_factory.mktemp("identity")
    (folder / "miniature").symlink_to(REPOSITORY / "miniature")
    shutil.copytree(REPOSITORY / "configs", folder / "configs", ignore=shutil.ignore_patterns("poses"))
    (folder / "configs/poses").symlink_to(REPOSITORY / "configs/poses")
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(miniature.build / ".stages")  # nothing is compiled again
    config = folder / "configs/miniature.yaml"
    (language, text), *_ = blocks(PAGE)
    assert language == "yaml"
    values = yaml.safe_load(config.read_text()) | yaml.safe_load(text)
    config.write_text(yaml.safe_dump(values | {"limits": {"input_pixels": 1 << 22}}))
    build_deployment(config, BuildOptions(), reporter=Silent())
    photo = one_person()
    (folder / "photos").mkdir()
    photo.save(folder / "photos/mara-1.jpg")
    ImageEnhance.Brightness(photo.crop((60, 0, 500, 400))).enhance(1.2).save(folder / "photos/mara-2.jpg")
    photo.resize((400, 400)).save(folder / "picture.jpg")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(load_deployment(folder / "configs/miniature.yaml"), endpoints=Endpoints()) as running:
        yield running


@pytest.fixture
def asking(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, deadline=60) as client:
        yield client


def encoded(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def enrolled(folder: Path, name: str, *photos: PIL.Image.Image) -> None:
    """Enroll photographs by the command's own code."""
    from intaglio_client.characters.enrolling import Enroller  # noqa: PLC0415

    paths = []
    for index, photo in enumerate(photos):
        paths.append(folder / f"{name}-{index}.png")
        photo.save(paths[-1])
    done = Enroller(load_deployment(folder / "configs/miniature.yaml"))(
        name, paths, threshold=None, replace=True
    )
    assert done.character is not None
    assert len(done.character.references) == len(photos)


def test_the_page_of_characters(server: Server, folder: Path, asking: Client) -> None:
    assert run_blocks(PAGE, server, folder) == ["yaml", "yaml", "bash", "python", "bash"]
    assert not (folder / "characters").exists(), "the page ends with forget"
    with pytest.raises(InvalidRequest, match="character: 'mara' is not enrolled"):
        asking.identify(folder / "picture.jpg", "mara")
    log = (folder / "build/miniature/triton.log").read_text()
    assert "identity" in log
    assert "embedding" not in log


def test_scores_are_those_of_the_networks_run_here(folder: Path, asking: Client) -> None:
    enrolled(folder, "ann", one_person(), one_person().crop((60, 0, 500, 400)))
    setting = load_deployment(folder / "configs/miniature.yaml").identity
    assert setting is not None
    character = EnrolledFolder(setting.characters).read("ann")
    picture = one_person().resize((700, 700))
    expected = judged(open_reader(setting)(picture), character.embeddings, criterion_of(setting, character))
    found = asking.identify(encoded(picture), "ann")
    assert found.likeness == expected.likeness == "match"
    assert (found.references, found.measure, found.threshold) == (2, "euclidean", 0.355)
    assert found.faces[0].cosine["nearest"] == pytest.approx(expected.faces[0].cosine_nearest, abs=1e-6)
    assert found.score == pytest.approx(expected.faces[0].value("euclidean", "nearest"), abs=1e-5)
    assert found.faces[0].box == pytest.approx(expected.faces[0].box, abs=0.06)
    assert asking.identify(encoded(picture), "ann", threshold=0.0).likeness == "no match"


def two_faces() -> PIL.Image.Image:
    """The same portrait twice."""
    pixels = np.asarray(one_person())
    return PIL.Image.fromarray(np.concatenate([pixels, pixels[:, ::-1]], axis=1))


def test_verdicts_are_no_errors(folder: Path, asking: Client) -> None:
    enrolled(folder, "ann", one_person())
    tiny = PIL.Image.new("RGB", (300, 300), "grey")
    tiny.paste(one_person().resize((200, 200)), (50, 50))
    assert asking.identify(encoded(nobody()), "ann").likeness == "no face"
    assert asking.identify(encoded(two_faces()), "ann").likeness == "many faces"
    assert asking.identify(encoded(two_faces()), "ann", faces="any").likeness == "match"
    small = asking.identify(encoded(tiny), "ann")
    assert (small.likeness, len(small.faces)) == ("face too small", 1)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no bytes": ({"image": b""}, "image: 0 bytes; allowed: 1 to"),
    "no picture": ({"image": b"\0" * 5000}, "image: .*allowed: "),
    "too many pixels": ({"image": encoded(PIL.Image.new("RGB", (2100, 2100)))}, r"image: .*allowed: "),
    "an unknown character": ({"character": "bob"}, "character: 'bob' is not enrolled; allowed: "),
    "a path": ({"character": "../ann"}, "character: '../ann'; allowed: at most 64 lower-case"),
    "a long name": ({"character": "a" * 100_000}, "character: 100000 bytes; allowed: at most 64"),
    "no name": ({"character": b"\xff"}, "character: .*allowed: "),
    "a threshold that is none": (
        {"threshold": float("nan")},
        "threshold: nan is out of range; allowed: -1 to 2",
    ),
    "a threshold of the other measure": (
        {"threshold": -0.5},
        "threshold: -0.5; allowed: 0 to 2, since the deployment measures euclidean",
    ),
    "a choice that is none": ({"faces": "two"}, "faces: .*allowed: one of one, any"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_named_and_the_next_one_works(folder: Path, asking: Client, name: str) -> None:
    if "ann" not in EnrolledFolder(folder / "characters").names():
        enrolled(folder, "ann", one_person())
    change, says = BAD[name]
    good: dict[str, Any] = {"image": encoded(one_person()), "character": "ann"}
    with pytest.raises(InvalidRequest, match=says):
        asking._answered(raw(good | change), lambda attempt, outputs: outputs)
    assert asking.identify(good["image"], "ann").matches


def raw(values: dict[str, Any]) -> Request:
    """A request that our own client would refuse to send."""
    tensors: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, float):
            tensors[name] = np.array([value], np.float32)
        else:
            tensors[name] = np.array([value.encode() if isinstance(value, str) else value], object)
    return Request(model=IDENTITY, tensors=tensors)


def test_a_file_that_others_may_read_is_refused(folder: Path, asking: Client) -> None:
    enrolled(folder, "eve", one_person())
    file = folder / "characters/eve.json"
    file.chmod(0o644)
    with pytest.raises(ServerError, match=r"others may read it \(mode 0644\); run: chmod 600"):
        asking.identify(encoded(one_person()), "eve")
    file.chmod(0o600)
    assert asking.identify(encoded(one_person()), "eve").matches


def test_the_filter_of_a_batch_asks_the_server(folder: Path, server: Server) -> None:
    enrolled(folder, "ann", one_person())
    spec = IdentityFilter(kind="identity", character="ann")
    with opened_filters([spec], servers=FilterServers((server.grpc_url,))) as (judge,):
        shown = judge(Candidate(np.asarray(one_person()), "a"))
        assert (shown.accepted, shown.reason, shown.scores["likeness"]) == (True, "", "match")
        assert shown.scores["euclidean"] < 0.1
        empty = judge(Candidate(np.asarray(nobody()), "b"))
        assert (empty.accepted, empty.reason) == (False, "no face")
        assert empty.scores == {"likeness": "no face", "faces": 0}
    strict = IdentityFilter(kind="identity", character="ann", threshold=0.0)
    with opened_filters([strict], servers=FilterServers((server.grpc_url,))) as (judge,):
        other = judge(Candidate(np.asarray(one_person().resize((400, 400))), "c"))
        assert not other.accepted
        assert other.reason.startswith("euclidean 0.")
        assert other.reason.endswith("is above 0")


BATCH: dict[str, Any] = {
    "inputs": {"prompt": "a person waving on a beach", "seed": [1, 2], "size": "192x256", "steps": 2},
    "filters": [
        {"kind": "detector", "network": "../miniature/detectors/nanodet.onnx", "confidence": 0.35},
        {"kind": "identity", "character": "ann"},
    ],
    "output": {"folder": "out"},
}


def test_a_batch_keeps_scores_and_no_embedding(folder: Path, server: Server) -> None:
    """The miniature's figures have no faces."""
    enrolled(folder, "ann", one_person())
    (folder / "photos/batch.yaml").write_text(yaml.safe_dump(BATCH))
    command = [sys.executable, "-m", "intaglio", "batch", "batch.yaml", "--url", server.grpc_url]
    done = subprocess.run(
        command, cwd=folder / "photos", capture_output=True, text=True, timeout=120, check=False
    )
    manifest = folder / "photos/out/manifest.jsonl"
    assert manifest.is_file(), done.stdout + done.stderr
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [record["reason"] for record in records] == ["identity: no face"] * 2
    assert records[0]["scores"]["identity"] == {"likeness": "no face", "faces": 0}
    assert set(records[0]["scores"]) == {"detector", "identity"}
    assert "embedding" not in manifest.read_text()


def test_real_people_are_told_apart(folder: Path, asking: Client, portraits: dict[str, Any]) -> None:
    enrolled(folder, "obama", portraits["obama"], portraits["obama2"])
    for name, photo in {**portraits, "astronaut": one_person()}.items():
        found = asking.identify(encoded(photo), "obama")
        assert found.matches == name.startswith("obama"), (name, found)
