"""Following a checkpoints folder: a new LoRA file is checked, published to a build, and tried on the running
server.

Every version published is kept among the last few, and one that the server cannot put on is taken back at
once.
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

_PART: Final = "_kohya.safetensors"
"""The trainer writes the kohya layout of the same LoRA beside diffusers'."""


@dataclass
class Follower:
    """A folder of LoRA files, in which the newest one that is whole counts."""

    folder: Path
    _last: tuple[Path, int, int] | None = None
    _taken: tuple[Path, int, int] | None = None

    def look(self) -> Path | None:
        """The newest file, once: when two looks found it alike, so that nobody writes to it still, and it was
        not taken before.
        """
        found = []
        for path in self.folder.glob("*.safetensors"):
            try:
                status = path.stat()
            except OSError:
                continue  # it was just replaced
            if not path.name.endswith(_PART):
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
    """The picture that shows a LoRA before and after."""

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
    """From finding the file to the first image of it; without a server, to its publication."""
    samples: Path | None
    """Before and after, side by side; None where no server answered."""


def store_of(deployment: Deployment) -> tuple[LoraStore, SwapLayers]:
    """The LoRAs of the deployment's build, and the layers that they may change.

    Raises:
        EngineMismatch: not built, or built without swapping.
    """
    folder = deployment.build_folder
    command = f"intaglio build {deployment.folder / f'{deployment.name}.yaml'}"
    return LoraStore(folder / LORAS_FOLDER), open_layers(read_manifest(folder, command=command), folder)


def followed_folders(deployment: Deployment, given: dict[str, Path]) -> dict[str, Path]:
    """LoRA -> folder: the registry's `checkpoints`, and `given` in their place.

    Raises:
        ConfigError: there is none.
    """
    entries = load_registry(deployment.registry).loras if deployment.registry is not None else {}
    found = {
        lora: entry.checkpoints for lora, entry in entries.items() if entry.checkpoints is not None
    } | given
    if unknown := sorted(set(found) - set(entries)):
        raise ConfigError(f"lora {unknown[0]}: not in the registry; it has {', '.join(entries) or 'none'}")
    if not found:
        raise ConfigError(
            "nothing to follow: name folders as `checkpoints` in the registry, or with --lora ID=FOLDER"
        )
    return found


@dataclass
class Publisher:
    """Takes files into a build's store, and tries them on its server."""

    store: LoraStore
    layers: SwapLayers
    samples: Samples
    url: str
    keep: int
    report: Callable[[str], None] = field(default=lambda text: None)

    def publish(self, lora: str, source: Path) -> Published | None:
        """Make `source` the version of `lora` that is served; None where it is already.

        Raises:
            LoraRefused: the file is damaged or not for this base.
            SwapFailed, and whatever else the server answers: it could not draw with it; the version before is
                served again.
            BuildError: no room; ConfigError: no such LoRA. In every case what was served before still is.
        """
        started = time.perf_counter()
        served = self.store.current().loras
        if lora not in served:
            raise ConfigError(
                f"lora {lora}: not served by this build; add it to the registry and build again"
            )
        digest, data = self.store.put(lora, source)
        if digest == served[lora].sha256:
            return None
        self.report(f"{lora}: checking {source.name}")
        self.layers.read(lora, data)
        self.report(f"{lora}: drawing it as it was")
        before = self._draw(lora)
        self.store.publish_version(lora, digest, keep=self.keep, data=data)
        self.report(f"{lora}: drawing it as it is")
        try:
            after = self._draw(lora) if before is not None else None
        except IntaglioError:
            self.store.roll_back(lora)
            raise
        shown = None if before is None or after is None else self._side_by_side(lora, digest, before, after)
        return Published(lora, digest, source, time.perf_counter() - started, shown)

    def _draw(self, lora: str) -> Image | None:
        """A picture with the LoRA as it is served now; None where no server answers."""
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
    """Every file published, as it comes, and None after each look at the folders; goes on for ever, whatever
    is wrong with a file.
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
