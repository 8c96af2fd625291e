"""A server that draws with the current version of a store's LoRA, as far as `intaglio watch` sees it."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import PIL.Image
import pytest
import yaml

from intaglio.contract.lora_registry import load_registry
from intaglio.errors import IntaglioError
from intaglio.loras.store import LoraStore
from intaglio.serving.control import Control
from intaglio.serving.workspace import Workspace
from intaglio_client import watch_samples
from intaglio_client.image import Image


def published_store(folder: Path) -> LoraStore:
    """A build's store with one LoRA, "night", whose one version is b"1"."""
    (folder / "night.safetensors").write_bytes(b"1")
    registry = folder / "loras.yaml"
    registry.write_text(yaml.safe_dump({"loras": {"night": {"file": "night.safetensors", "kind": "style"}}}))
    store = LoraStore(folder / "build" / "loras")
    digest, _ = store.put("night", folder / "night.safetensors")
    store.publish_registry(load_registry(registry), {"night": digest})
    return store


@dataclass
class FakeServer:
    """What it draws, and what a test wants to go wrong."""

    store: LoraStore
    url: ClassVar[str] = "127.0.0.1:7"
    ready: bool = True
    serves: str | None = None
    """The version that it draws with; None: the current one."""
    failures: dict[str, IntaglioError] = field(default_factory=dict)
    before_failure: Callable[[], None] = lambda: None
    drawings: int = 0

    @classmethod
    def started(cls, store: LoraStore, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
        """A server that `watch` reaches instead of the network."""
        server = cls(store)
        monkeypatch.setattr(watch_samples, "Client", lambda url, *, tls: FakeClient(server, url))
        return server

    @property
    def current(self) -> str:
        return self.store.current().loras["night"].sha256

    def failures_of(self, data: bytes, error: IntaglioError) -> None:
        self.failures[hashlib.sha256(data).hexdigest()] = error

    @contextmanager
    def controlled(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """As `intaglio serve` runs it: with a private folder that names the build and the port."""
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        workspace = Workspace.create()
        build = self.store.folder.parent
        control = Control(workspace.folder, build, lambda report: "reloaded", grpc_url=self.url)
        try:
            yield
        finally:
            control.close()
            workspace.remove()


@dataclass
class FakeClient:
    server: FakeServer
    url: str

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def is_ready(self) -> bool:
        return self.url == self.server.url and self.server.ready

    def generate(self, prompt: str, **parameters: Any) -> Image:
        version = self.server.serves or self.server.current
        self.server.drawings += 1
        if version in self.server.failures:
            self.server.before_failure()
            raise self.server.failures[version]
        data = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(data, "PNG")
        return Image(data.getvalue(), {"model": {"loras": {"night": version}}})
