"""Where weights come from: a diffusers folder, one .safetensors file, a hub id or a seed.

The first candidate that is available is used. Finding it is cheap and imports no torch, because a build with
nothing changed only needs paths; `intaglio_export.weights.load` reads the weights. Components are diffusers'
subfolders (`unet`, `text_encoder`, `text_encoder_2`, `vae`). A single file holds all of them; its
configurations and tokenizers come from the next candidate that has them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.contract.sdxl import without_context
from intaglio.contract.sources import Source
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.seeded import Seeded, tokenizer_root

__all__ = [
    "COMPONENTS",
    "SDXL_HUB_ID",
    "TOKENIZERS",
    "Base",
    "Weights",
    "component_of",
    "find_base",
    "find_model",
    "read_json",
    "weight_files",
]

log = logging.getLogger(__name__)

COMPONENTS: Final = ("text_encoder", "text_encoder_2", "unet", "vae")
TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
SDXL_HUB_ID: Final = "stabilityai/stable-diffusion-xl-base-1.0"
_SCHEDULER: Final = "scheduler/scheduler_config.json"
_PICKLED: Final = (".bin", ".ckpt", ".pt", ".pth")
_HUB_FILES: Final = ("*.json", "*.txt", "*.safetensors")
_HUB_LEFT_OUT: Final = (
    "*.fp16.safetensors",
    "*lora*",
    "*openvino*",
    "*flax*",
    "*onnx*",
    "*_0.9vae*",
    "sd_xl_base*",
)


def component_of(network: str) -> str:
    """The component whose weights `network` has.

    Both VAE networks have those of `vae`. The context of a UNet or ControlNet has those of that network.
    """
    return "vae" if network in ("vae_decoder", "vae_encoder") else without_context(network)


@dataclass(frozen=True, slots=True)
class Weights:
    """One component's weights: `folder` holds config.json and the weights, unless a single `file` has them.

    With `seeded` there are no files: `folder` is only named after the component.
    """

    folder: Path
    file: Path | None = None
    seeded: Seeded | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The network's config.json."""
        if self.seeded is not None:
            return self.seeded.config(self.folder.name)
        return read_json(self.folder / "config.json")

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that identifies the weights."""
        if self.seeded is not None:
            return ()
        own = weight_files(self.folder) if self.file is None else [self.file]
        return (self.folder / "config.json", *own)


@dataclass(frozen=True, slots=True)
class Base:
    """The base that is available."""

    label: str
    root: Path
    """Folder with the configurations and tokenizers of every component."""
    file: Path | None
    passed_over: tuple[str, ...]
    """Earlier candidates, each with the reason why it is not available."""
    seeded: Seeded | None = None

    def weights(self, component: str) -> Weights:
        """Weights of one of `COMPONENTS`."""
        return Weights(self.root / component, self.file, self.seeded)

    @property
    def scheduler(self) -> dict[str, Any]:
        """scheduler_config.json."""
        return dict(read_json(self.root / _SCHEDULER)) if self.seeded is None else self.seeded.scheduler

    @property
    def model_index(self) -> Mapping[str, Any]:
        """model_index.json."""
        if self.seeded is not None:
            return {}  # SDXL's own has the values that are assumed where the file names none
        return read_json(self.root / "model_index.json")


class _AbsentError(Exception):
    """A candidate is not available: the next one is tried."""


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        BuildError: missing, unreadable or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{path}: must be a JSON object, not {type(value).__name__}")
    return value


def find_base(candidates: Sequence[Source]) -> Base:
    """The first of `candidates` that is available; it names those passed over with their reasons.

    Raises:
        ConfigError: none is available.
        BuildError: one is there but incomplete. A damaged preference is never silently replaced.
    """
    passed_over: list[str] = []
    for index, source in enumerate(candidates):
        if (seeded := _seeded(source)) is not None:
            return Base(str(source), tokenizer_root(), None, tuple(passed_over), seeded)
        try:
            if source.file is None:
                base = Base(str(source), _source_folder(source), None, tuple(passed_over))
            else:
                file = _existing_file(source.file)
                base = Base(str(source), _config_root(candidates, index), file, tuple(passed_over))
        except _AbsentError as absent:
            passed_over.append(f"{source}: {absent}")
            continue
        _check_pipeline(base)
        if passed_over:
            log.warning("base falls back to %s; not available: %s", base.label, "; ".join(passed_over))
        return base
    raise ConfigError(
        f"no base is available: {'; '.join(passed_over)}; "
        "correct `base` in the configuration or fetch one of them"
    )


def find_model(source: Source, *, subfolder: str) -> Weights:
    """A single network (a ControlNet or a VAE), from its own folder or from `subfolder` of a pipeline's.

    Raises:
        ConfigError: it is not available.
        BuildError: it is there but incomplete.
    """
    if (seeded := _seeded(source)) is not None:
        return Weights(Path(subfolder), seeded=seeded)
    try:
        if source.file is not None:
            raise ConfigError(
                f"{source.file}: a {subfolder} cannot be read from a single file; "
                "name a diffusers folder or a hub id"
            )
        folder = _source_folder(source)
    except _AbsentError as absent:
        raise ConfigError(
            f"{subfolder} {source}: {absent}; correct the path in the configuration or fetch it"
        ) from absent
    if not (folder / "config.json").is_file() and (folder / subfolder / "config.json").is_file():
        folder = folder / subfolder
    _check_component(folder)
    return Weights(folder)


def _seeded(source: Source) -> Seeded | None:
    if source.architecture is None or source.seed is None:
        return None
    return Seeded(source.architecture, source.seed)


def _source_folder(source: Source) -> Path:
    if source.hub is not None:
        return _hub_folder(source.hub, source.revision)
    assert source.folder is not None
    if not source.folder.is_dir():
        raise _AbsentError("no such folder")
    return source.folder


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise _AbsentError("no such file")
    return path


def _config_root(candidates: Sequence[Source], index: int) -> Path:
    """Folder with the configurations for the single file `candidates[index]`."""
    for source in (*candidates[index + 1 :], *candidates[:index], Source(hub=SDXL_HUB_ID)):
        if source.file is None and source.architecture is None:
            try:
                return _source_folder(source)
            except _AbsentError:
                continue
    raise BuildError(
        f"{candidates[index].file}: a single file has no configurations or tokenizers; "
        f"list a diffusers folder (or hub: {SDXL_HUB_ID}) after it"
    )


def _hub_folder(name: str, revision: str | None) -> Path:
    """The repository's snapshot. A cached one is preferred, so that a later build uses the same files."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and seldom needed)

    choice: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": list(_HUB_FILES),
        "ignore_patterns": list(_HUB_LEFT_OUT),
    }
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **choice))
        if any(cached.rglob("*.safetensors")):
            return cached
    except Exception as error:  # whatever the reason, the hub is asked next
        log.debug("%s is not cached: %s", name, error)
    try:
        return Path(snapshot_download(name, **choice))
    except Exception as error:  # httpx, requests, OSError, hub errors share no base class
        raise _AbsentError(f"not on the hub or not reachable ({type(error).__name__})") from error


def _check_pipeline(base: Base) -> None:
    for component in COMPONENTS:
        if base.file is None:
            _check_component(base.root / component)
        else:
            read_json(base.root / component / "config.json")
    for tokenizer in TOKENIZERS:
        if not (base.root / tokenizer).is_dir():
            raise BuildError(f"{base.root / tokenizer}: missing; a base must have both tokenizers")
    read_json(base.root / _SCHEDULER)


def _check_component(folder: Path) -> None:
    read_json(folder / "config.json")
    if not weight_files(folder):
        pickled = sorted(item.name for item in folder.iterdir() if item.suffix in _PICKLED)
        hint = f"; {pickled[0]} is pickled and never read: convert it to .safetensors" if pickled else ""
        raise BuildError(f"{folder}: no .safetensors weights{hint}")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that diffusers reads: the plain ones, or else the fp16 variant."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if ".fp16" not in file.name] or files
