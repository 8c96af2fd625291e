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

import PIL.Image

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.errors import ConfigError, IntaglioError, SwapFailed, Unavailable
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import SwapLayers, open_layers
from intaglio_client.client import Client
from intaglio_client.image import Image

__all__ = ["Follower", "Published", "Publisher", "Samples", "follow", "followed_folders", "store_of"]

_KOHYA_COPY: Final = "_kohya.safetensors"
"""End of the name under which the trainer writes the same LoRA a second time, in kohya's layout."""


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
            if not path.name.endswith(_KOHYA_COPY):
                found.append((status.st_mtime_ns, path, status.st_size))
        newest = max(found, default=None)
        stamp = None if newest is None else (newest[1], newest[0], newest[2])
        settled, self._last = stamp == self._last, stamp
        if stamp is None or not settled or stamp == self._taken:
            return None
        self._taken = stamp
        return stamp[0]


@dataclass(frozen=True)
class Samples:
    """How to draw the picture that shows a LoRA before and after."""

    folder: Path
    prompt: str | None = None
    """None: the LoRA's trigger words."""
    seed: int = 0


@dataclass(frozen=True)
class Published:
    """A version that is served now."""

    lora: str
    sha256: str
    source: Path
    seconds: float
    """From finding the file to the first image with it; without a server, to its publication."""
    samples: Path | None
    """Picture of before and after, side by side; None where no server answered."""


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


@dataclass
class Publisher:
    """Publishes files to a build's store, and tries them on the build's server."""

    store: LoraStore
    layers: SwapLayers
    samples: Samples
    url: str
    keep: int
    report: Callable[[str], None] = field(default=lambda text: None)

    def publish(self, lora: str, source: Path) -> Published | None:
        """Make `source` the version of `lora` that is served; None where it already is.

        Raises:
            LoraRefused: the file is damaged or not for this base.
            SwapFailed, and whatever else the server answers: the server cannot draw with the file.
            BuildError: there is no room.
            ConfigError: the build has no such LoRA.
        After an error the previous version is served.
        """
        started = time.perf_counter()
        served = self.store.current().loras
        if lora not in served:
            problem = "not served by this build; add it to the registry and build again"
            raise ConfigError(f"lora {lora}: {problem}")
        digest, data = self.store.put(lora, source)
        if digest == served[lora].sha256:
            return None
        self.report(f"{lora}: checking {source.name}")
        self.layers.read(lora, data)
        self.report(f"{lora}: drawing the version before")
        before = self._draw(lora)
        self.store.publish_version(lora, digest, keep=self.keep, data=data)
        self.report(f"{lora}: drawing the new version")
        try:
            after = None if before is None else self._draw(lora)
        except IntaglioError:
            self.store.roll_back(lora)
            raise
        shown = None if before is None or after is None else self._side_by_side(lora, digest, before, after)
        return Published(lora, digest, source, time.perf_counter() - started, shown)

    def _draw(self, lora: str) -> Image | None:
        """A picture with the version that is served now; None where no server answers."""
        entry = self.store.current().loras[lora]
        prompt = self.samples.prompt or ", ".join(entry.trigger_words) or lora
        with Client(self.url) as client:
            if not client.is_ready():
                return None
            try:
                return client.generate(prompt, seed=self.samples.seed, loras=[(lora, entry.weight)])
            except SwapFailed:
                raise
            except Unavailable:
                return None

    def _side_by_side(self, lora: str, digest: str, before: Image, after: Image) -> Path:
        left, right = before.decode(), after.decode()
        sheet = PIL.Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
        sheet.paste(left, (0, 0))
        sheet.paste(right, (left.width, 0))
        path = self.samples.folder / f"{lora}-{digest[:12]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
        return path


def follow(
    publisher: Publisher,
    folders: dict[str, Path],
    *,
    interval: float,
    refused: Callable[[IntaglioError], None],
) -> Iterator[Published | None]:
    """Follow `folders` for ever: yields every published file, and None after each look at the folders.

    An error of one file goes to `refused` and does not end the loop.
    """
    followers = {lora: Follower(folder) for lora, folder in folders.items()}
    while True:
        for lora, follower in followers.items():
            source = follower.look()
            if source is None:
                continue
            try:
                if (published := publisher.publish(lora, source)) is not None:
                    yield published
            except IntaglioError as error:
                refused(error)
        yield None
        time.sleep(interval)
