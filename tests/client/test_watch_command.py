"""`intaglio watch --once` and `intaglio rollback`, as a user types them, without Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.cli import main
from intaglio.loras.store import LoraStore
from intaglio_client import watch

from .drawing import FakeServer, published_store


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment whose build publishes "night", and whose server draws anything."""
    store = published_store(tmp_path)
    FakeServer.started(store, monkeypatch)

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
