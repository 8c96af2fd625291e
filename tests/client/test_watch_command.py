"""`intaglio watch --once` and `intaglio rollback`, as a user types them, without Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.cli import main
from intaglio.errors import DeadlineExceeded, IntaglioError, InvalidRequest, QueueFull, SwapFailed
from intaglio.loras.store import LoraStore
from intaglio_client import watch

from .drawing import FakeServer, published_store


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server that draws anything with the LoRA "night"."""
    return FakeServer.started(published_store(tmp_path), monkeypatch)


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The deployment of the server's build."""
    store = server.store

    class Accepting:
        def read(self, lora: str, data: bytes) -> None: ...

    monkeypatch.setattr(watch, "store_of", lambda deployment: (store, Accepting()))
    monkeypatch.setenv("COLUMNS", "300")
    values: dict[str, Any] = {"base": {"folder": "model"}, "profiles": {"sizes": [[64, 64]]}}
    path = tmp_path / "plate.yaml"
    path.write_text(yaml.safe_dump({**values, "registry": "loras.yaml", "swap": "all"}))
    return path


def watch_once(config: Path, data: bytes) -> int:
    folder = config.parent / "trained"
    folder.mkdir(exist_ok=True)
    (folder / "night.safetensors").write_bytes(data)
    words = ["--lora", f"night={folder}", "--url", FakeServer.url, "--samples", str(config.parent / "sheets")]
    return main(["watch", str(config), "--once", "--interval", "0.05", *words])


def test_once_ends_with_the_first_file_whatever_becomes_of_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch_once(config, b"2") == 0
    assert "served   night " in capsys.readouterr().out
    assert watch_once(config, b"2") == 0
    assert "is served already" in capsys.readouterr().out
    assert main(["rollback", str(config), "night"]) == 0
    assert "until you ask for it with intaglio loras serve night --version" in capsys.readouterr().out
    assert watch_once(config, b"2") == 1
    assert "was rejected by a rollback" in capsys.readouterr().err
    store = LoraStore(config.parent / "build" / "loras")
    assert len(store.current().loras["night"].versions) == 1


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("loras", "night changes unknown layers", allowed="another file"),
        SwapFailed("night cannot be applied"),
        DeadlineExceeded("too late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_once_fails_where_the_server_cannot_draw_with_the_file(
    server: FakeServer, config: Path, error: IntaglioError, capsys: pytest.CaptureFixture[str]
) -> None:
    before = server.current
    server.failures_of(b"2", error)
    assert watch_once(config, b"2") == 1
    assert f"refused  {error}" in capsys.readouterr().err
    assert server.current == before, "taken back"


def test_once_is_done_where_the_server_was_only_busy(
    server: FakeServer, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = server.current
    server.failures_of(b"2", QueueFull("32 requests wait"))
    assert watch_once(config, b"2") == 0
    assert "nothing was drawn: 32 requests wait" in capsys.readouterr().out
    assert server.current != before
