"""Which files of a folder are followed, and what becomes of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import IntaglioError, LoraRefused, QueueFull, SwapFailed
from intaglio_client.watch import Follower, Published, Publisher, Unchanged, follow
from intaglio_client.watch_samples import Samples

from .drawing import FakeServer, published_store


def test_a_file_counts_once_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    path = tmp_path / "a.safetensors"
    assert follower.look() is None
    path.write_bytes(b"1")
    assert follower.look() is None, "somebody may still be writing"
    path.write_bytes(b"12")
    assert follower.look() is None
    assert follower.look() == path
    assert follower.look() is None, "once"
    (tmp_path / "a_kohya.safetensors").write_bytes(b"the same in another layout")
    (tmp_path / "b.partial").write_bytes(b"1")
    assert [follower.look() for _ in range(3)] == [None] * 3
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    assert [follower.look() for _ in range(2)] == [None, path]


def test_a_run_may_be_named_as_a_copy_is(tmp_path: Path) -> None:
    path = tmp_path / "night_kohya.safetensors"
    path.write_bytes(b"1")
    follower = Follower(tmp_path)
    assert [follower.look() for _ in range(2)] == [None, path]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server of a build whose LoRA "night" has the version b"1"."""
    return FakeServer.started(published_store(tmp_path), monkeypatch)


def publisher(server: FakeServer, tmp_path: Path, url: str | None = FakeServer.url) -> Publisher:
    class Accepting:
        def read(self, lora: str, data: bytes) -> None:
            if data == b"damaged":
                raise LoraRefused(lora, "damaged")

    layers: Any = Accepting()
    return Publisher(server.store, layers, Samples(tmp_path / "sheets"), url, 5)


def trained(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "new" / "night.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def publish(server: FakeServer, tmp_path: Path, data: bytes, **given: Any) -> Published:
    found = publisher(server, tmp_path, **given).publish("night", trained(tmp_path, data))
    assert found is not None
    return found


def test_a_broken_version_does_not_keep_its_correction_out(server: FakeServer, tmp_path: Path) -> None:
    server.failures[server.current] = SwapFailed("loras: cannot apply night@1")
    found = publish(server, tmp_path, b"2")
    assert server.current == found.sha256
    assert found.samples is not None, "the new version is shown alone"
    assert found.note == "the version before cannot be shown: loras: cannot apply night@1"


def test_a_version_that_cannot_be_drawn_is_taken_back_alone(server: FakeServer, tmp_path: Path) -> None:
    first = server.current
    server.failures_of(b"2", SwapFailed("loras: cannot apply night@1"))
    with pytest.raises(SwapFailed):
        publish(server, tmp_path, b"2")
    assert server.current == first
    newer, data = server.store.put("night", trained(tmp_path, b"3"))

    def build_meanwhile() -> None:
        server.store.serve_version("night", newer, data=data)

    server.before_failure = build_meanwhile
    with pytest.raises(SwapFailed):
        publish(server, tmp_path, b"2")
    assert server.current == newer
    assert server.store.current().loras["night"].versions == (first, newer)
    assert not server.store.current().loras["night"].rejected, "the server may be able to tomorrow"


def test_a_busy_server_is_no_reason_to_take_a_version_back(server: FakeServer, tmp_path: Path) -> None:
    server.failures_of(b"2", QueueFull("the queue is full"))
    found = publish(server, tmp_path, b"2")
    assert server.current == found.sha256
    assert (found.samples, found.note) == (None, "nothing was drawn: the queue is full")


def test_a_rejected_version_is_not_published_again(server: FakeServer, tmp_path: Path) -> None:
    publish(server, tmp_path, b"2")
    first = server.store.roll_back("night").loras["night"].sha256
    drawings = server.drawings
    with pytest.raises(LoraRefused, match="was rejected by a rollback; intaglio loras serve night --version"):
        publish(server, tmp_path, b"2")
    assert server.current == first
    assert server.drawings == drawings


def test_without_a_url_the_server_of_the_build_is_found(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = publish(server, tmp_path, b"2", url=None)
    assert found.samples is None
    assert found.note is not None
    assert "no server of" in found.note
    assert "for a server elsewhere give --url" in found.note
    with server.controlled(tmp_path, monkeypatch):
        found = publish(server, tmp_path, b"3", url=None)
        assert (found.samples is not None, found.note) == (True, None)
        server.ready = False
        found = publish(server, tmp_path, b"4", url=None)
        assert found.note == f"the server at {server.url} is not ready, so nothing was drawn"
        assert server.current == found.sha256


def test_a_server_of_another_build_is_named(server: FakeServer, tmp_path: Path) -> None:
    server.serves = "f" * 64
    found = publish(server, tmp_path, b"2")
    assert (
        found.note == f"the server at {server.url} serves version {'f' * 12}, so this version was not tried"
    )
    assert server.current == found.sha256


def test_a_file_that_is_served_already_is_said(server: FakeServer, tmp_path: Path) -> None:
    refused: list[IntaglioError] = []
    source = trained(tmp_path, b"1")
    looks = follow(
        publisher(server, tmp_path), {"night": source.parent}, interval=0.0, refused=refused.append
    )
    assert [next(looks) for _ in range(3)] == [None, Unchanged("night", source), None]
    source.write_bytes(b"damaged")
    assert [next(looks) for _ in range(3)] == [None, None, None]
    assert [str(error) for error in refused] == ["lora night: damaged"]
