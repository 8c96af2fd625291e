"""Following a folder of checkpoints: a new LoRA file is checked, published to a build, and tried on the
server.

The last few published versions are kept. A version that the server cannot apply is taken back immediately.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.errors import ConfigError, IntaglioError
from intaglio.loras.sets import ServedLora
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import SwapLayers, open_layers
from intaglio.loras.versions import after_watch, shown_version
from intaglio.whole_files import storage_problem
from intaglio_client.image import Image
from intaglio_client.watch_samples import NotDrawn, Samples, drawn, ready_server, saved_sheet

__all__ = ["Follower", "Published", "Publisher", "Unchanged", "follow", "followed_folders", "store_of"]

_KOHYA_COPY: Final = "_kohya.safetensors"
"""End of the name under which the trainer writes the same LoRA a second time, in kohya's layout."""


def _is_copy(path: Path) -> bool:
    """Whether the same LoRA lies beside `path` without that end; a run itself may be named so."""
    original = path.with_name(f"{path.name.removesuffix(_KOHYA_COPY)}.safetensors")
    return path.name.endswith(_KOHYA_COPY) and original.exists()


@dataclass
class Follower:
    """A folder of LoRA files, of which the newest complete one counts."""

    folder: Path
    _last: tuple[Path, int, int] | None = None
    _taken: tuple[Path, int, int] | None = None

    def look(self) -> Path | None:
        """The newest file, once it is complete; None where it is not complete, or was returned before.

        A file counts as complete when two looks in a row find the same size and time.
        """
        found = []
        for path in self.folder.glob("*.safetensors"):
            try:
                status = path.stat()
            except OSError:
                continue  # it was just replaced
            if not _is_copy(path):
                found.append((status.st_mtime_ns, path, status.st_size))
        newest = max(found, default=None)
        stamp = None if newest is None else (newest[1], newest[0], newest[2])
        settled, self._last = stamp == self._last, stamp
        if stamp is None or not settled or stamp == self._taken:
            return None
        self._taken = stamp
        return stamp[0]


@dataclass(frozen=True)
class Published:
    """A version that is served now."""

    lora: str
    sha256: str
    source: Path
    seconds: float
    """From finding the file to the first image with it; without a server, to its publication."""
    samples: Path | None
    """Picture of before and after, side by side; None where no server drew with the version."""
    note: str | None = None
    """Why there is no picture, or why it shows only the new version."""


@dataclass(frozen=True)
class Unchanged:
    """A file that is the version served already."""

    lora: str
    source: Path


def store_of(deployment: Deployment) -> tuple[LoraStore, SwapLayers]:
    """The LoRAs of the deployment's build, and the layers that they may change.

    Raises:
        EngineMismatch: the deployment is not built, or built without swapping.
    """
    folder = deployment.build_folder
    command = f"intaglio build {deployment.folder / f'{deployment.name}.yaml'}"
    return LoraStore(folder / LORAS_FOLDER), open_layers(read_manifest(folder, command=command), folder)


def followed_folders(deployment: Deployment, given: dict[str, Path]) -> dict[str, Path]:
    """LoRA -> folder: the registry's `checkpoints`; folders in `given` replace them.

    Raises:
        ConfigError: there is no folder, or `given` names a LoRA that the registry does not have.
    """
    entries = load_registry(deployment.registry).loras if deployment.registry is not None else {}
    own = {lora: entry.checkpoints for lora, entry in entries.items() if entry.checkpoints is not None}
    found = own | given
    if unknown := sorted(set(found) - set(entries)):
        raise ConfigError(f"lora {unknown[0]}: not in the registry; it has {', '.join(entries) or 'none'}")
    if not found:
        raise ConfigError(
            "nothing to follow: name folders as `checkpoints` in the registry, or with --lora ID=FOLDER"
        )
    return found


@dataclass(frozen=True)
class _Seen:
    """What a server showed of a new version."""

    sheet: Path | None
    note: str | None


@dataclass
class Publisher:
    """Publishes files to a build's store, and tries them on the build's server."""

    store: LoraStore
    layers: SwapLayers
    samples: Samples
    url: str | None
    """Where the server is; None: wherever this user runs one of the build on this machine."""
    keep: int
    report: Callable[[str], None] = field(default=lambda text: None)

    def publish(self, lora: str, source: Path) -> Published | None:
        """Make `source` the version of `lora` that is served; None where it already is.

        Raises:
            LoraRefused: the file is damaged, not for this base, or was rejected by a rollback.
            SwapFailed, and whatever else the server answers: the server cannot draw with the file.
            BuildError: there is no room.
            ConfigError: the build has no such LoRA.
        After an error the previous version is served, or what others published meanwhile.
        """
        started = time.perf_counter()
        served = self.store.current().loras
        if lora not in served:
            raise ConfigError(f"lora {lora}: not served by this build; run intaglio build again")
        digest, data = self.store.put(lora, source)
        if digest == served[lora].sha256:
            return None
        self.report(f"{lora}: checking {source.name}")
        after_watch(lora, served[lora], digest, keep=self.keep)  # before anything is drawn
        self.layers.read(lora, data)
        seen = self._serve_and_draw(lora, served[lora], digest, data)
        return Published(lora, digest, source, time.perf_counter() - started, seen.sheet, seen.note)

    def _serve_and_draw(self, lora: str, before: ServedLora, digest: str, data: bytes) -> _Seen:
        """Make `digest` current, and show it beside the version before where a server draws with it."""
        images: list[Image] = []
        note = None
        try:
            url = ready_server(self.store.folder.parent, self.url, self.samples.tls)
        except NotDrawn as reason:
            self.store.publish_version(lora, digest, keep=self.keep, data=data)
            return _Seen(None, str(reason))
        self.report(f"{lora}: drawing the version before")
        try:
            images.append(drawn(url, self.samples, lora, before))
        except IntaglioError as error:  # a version that mends a broken one must not depend on it
            note = f"the version before cannot be shown: {error}"
        entry = self.store.publish_version(lora, digest, keep=self.keep, data=data).loras[lora]
        self.report(f"{lora}: drawing the new version")
        try:
            images.append(drawn(url, self.samples, lora, entry))
        except NotDrawn as reason:
            return _Seen(None, str(reason))
        except IntaglioError:
            self.store.take_back(lora, digest, before=before)
            raise
        path = self.samples.folder / f"{lora}-{shown_version(digest)}.png"
        try:
            return _Seen(saved_sheet(path, images), note)
        except OSError as error:  # it is published and was drawn: a sheet that cannot be kept changes nothing
            return _Seen(None, f"its pictures could not be kept: {path}: {storage_problem(error)}")


def follow(
    publisher: Publisher,
    folders: dict[str, Path],
    *,
    interval: float,
    refused: Callable[[IntaglioError], None],
) -> Iterator[Published | Unchanged | None]:
    """Follow `folders` for ever: yields every file that is served, and None after each look at the folders.

    An error of one file goes to `refused` and does not end the loop.
    """
    followers = {lora: Follower(folder) for lora, folder in folders.items()}
    while True:
        for lora, follower in followers.items():
            source = follower.look()
            if source is None:
                continue
            try:
                yield publisher.publish(lora, source) or Unchanged(lora, source)
            except IntaglioError as error:
                refused(error)
        yield None
        time.sleep(interval)
