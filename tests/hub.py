"""A hub on this machine: repositories as dictionaries, and the cache of an interrupted download."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

GATED = (403, {"X-Error-Code": "GatedRepo"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`repositories` are files by name by repository; `fetched` lists what was downloaded."""

    cache: Path
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers of the answer for a repository (`owner/name`) or for one file of it."""
    gated: set[str] = field(default_factory=set)
    """Repositories whose files it gives to nobody."""

    def keep(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Put `files` into the cache, as a download does that may have been interrupted."""
        repository = self.cache / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / COMMIT
        for path, data in files.items():
            blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)
            link = snapshot / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs/main").write_text(COMMIT)
        return snapshot


@contextmanager
def local_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub asks instead of the real one."""
    hub = Hub(cache)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(f"http://127.0.0.1:{server.server_port}", cache, monkeypatch)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def without_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The cache alone: nobody answers."""
    _use("http://127.0.0.1:9", cache, monkeypatch)
    return Hub(cache)


def _use(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download  # noqa: PLC0415  (slow to import)

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for module in (constants, file_download):
        monkeypatch.setattr(
            module,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            raising=False,
        )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if path.startswith("api/models/"):
                name = "/".join(path.split("/")[2:4])
                if path.endswith("/auth-check") and name in hub.gated:
                    self._refuse(*GATED)
                    return
                asks_for_tree = path.split("/")[4:5] == ["tree"]
                described = self._tree(name) if asks_for_tree else self._described(name)
                self._reply(described, body=body, asked=name)
                return
            name, _, rest = path.partition("/resolve/")
            if name in hub.gated:
                self._refuse(*GATED)
                return
            file = rest.partition("/")[2]
            data = hub.repositories.get(name, {}).get(file)
            if body and data is not None:
                hub.fetched.append(file)
            self._reply(data, body=body, asked=f"{name}/{file}")

        def _described(self, name: str) -> bytes | None:
            files = hub.repositories.get(name)
            if files is None:
                return None
            siblings = [
                {"rfilename": path, "size": len(data), "blobId": hashlib.sha256(data).hexdigest()}
                for path, data in files.items()
            ]
            described = {"id": name, "sha": COMMIT, "private": False, "siblings": siblings}
            return json.dumps(described | {"gated": "manual" if name in hub.gated else False}).encode()

        def _tree(self, name: str) -> bytes | None:
            """What newer releases of the library ask before a download."""
            files = hub.repositories.get(name)
            if files is None:
                return None
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha256(data).hexdigest()}
                for path, data in files.items()
            ]
            return json.dumps(tree).encode()

        def _refuse(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for header, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(header, value)
            self.end_headers()

        def _reply(self, data: bytes | None, *, body: bool, asked: str) -> None:
            if asked in hub.refusals:
                self._refuse(*hub.refusals[asked])
                return
            self.send_response(200 if data is not None else 404)
            if data is None:
                known = any(f"/{name}" in self.path for name in hub.repositories)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            data = data or b""
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    return Handler
