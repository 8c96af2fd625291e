"""Pictures that show a LoRA before and after a new version, drawn by a server of the build."""

# ruff: noqa: N818  (as in intaglio.errors)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from intaglio.errors import IntaglioError, SwapFailed, Unavailable
from intaglio.loras.sets import ServedLora
from intaglio.loras.versions import shown_version
from intaglio.serving.control import controlled_servers
from intaglio_client.client import Client
from intaglio_client.connections.tls import Tls
from intaglio_client.image import Image

__all__ = ["NotDrawn", "Samples", "drawn", "ready_server", "saved_sheet"]


@dataclass(frozen=True)
class Samples:
    """How to draw the picture that shows a LoRA before and after."""

    folder: Path
    prompt: str | None = None
    """None: the LoRA's trigger words."""
    seed: int = 0
    tls: Tls | None = None
    """Of the connection to the server; None: plain text."""


class NotDrawn(IntaglioError):
    """No server drew with the version, for a reason that does not speak against the version."""


def ready_server(build: Path, url: str | None, tls: Tls | None) -> str:
    """Where a server of the build in `build` accepts requests: `url`, or the first that this user runs here.

    Raises:
        NotDrawn: there is none, and where one was looked for.
    """
    urls = [server.grpc_url for server in controlled_servers(build)] if url is None else [url]
    for candidate in urls:
        with Client(candidate, tls=tls) as client:
            if client.is_ready():
                return candidate
    if urls:
        raise NotDrawn(f"the server at {', '.join(urls)} is not ready, so nothing was drawn")
    where = f"no server of {build} runs on this machine as this user with this TMPDIR"
    raise NotDrawn(f"{where}, so nothing was drawn; for a server elsewhere give --url")


def drawn(url: str, samples: Samples, lora: str, entry: ServedLora) -> Image:
    """A picture with the current version of `lora`, drawn by the server at `url`.

    Raises:
        NotDrawn: the server is busy, went away, or serves another version.
        SwapFailed, and whatever else the server answers: it cannot draw with this version.
    """
    prompt = samples.prompt or ", ".join(entry.trigger_words) or lora
    with Client(url, tls=samples.tls) as client:
        try:
            image = client.generate(prompt, seed=samples.seed, loras=[(lora, entry.weight)])
        except SwapFailed:
            raise
        except Unavailable as error:
            raise NotDrawn(f"nothing was drawn: {error}") from error
    version = image.metadata["model"].get("loras", {}).get(lora)
    if version != entry.sha256:
        other = "another build" if version is None else f"version {shown_version(version)}"
        raise NotDrawn(f"the server at {url} serves {other}, so this version was not tried")
    return image


def saved_sheet(path: Path, images: list[Image]) -> Path:
    """Write `images` to `path`, side by side."""
    decoded = [image.decode() for image in images]
    width = sum(picture.width for picture in decoded)
    sheet = PIL.Image.new("RGB", (width, max(picture.height for picture in decoded)))
    left = 0
    for picture in decoded:
        sheet.paste(picture, (left, 0))
        left += picture.width
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
