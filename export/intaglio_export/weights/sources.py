"""Where weights come from: a diffusers folder, one .safetensors file, a hub id or a seed; the first candidate
that is there wins.

Finding is cheap and imports no torch: a build with nothing changed only needs paths. `load_network` reads the
weights. Components are diffusers' subfolders (`unet`, `text_encoder`, `text_encoder_2`, `vae`); a single file
holds all of them and takes configurations and tokenizers from the next candidate that has them.
"""

# ruff: noqa: PLC0415  (torch is imported only when weights are read)

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intaglio.contract.sources import Source
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.seeded import Seeded, make_network, tokenizer_root

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "COMPONENTS",
    "SDXL_HUB_ID",
    "TOKENIZERS",
    "Base",
    "Weights",
    "find_base",
    "find_model",
    "load_network",
    "read_json",
]

log = logging.getLogger(__name__)

COMPONENTS: Final = ("text_encoder", "text_encoder_2", "unet", "vae")
TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
SDXL_HUB_ID: Final = "stabilityai/stable-diffusion-xl-base-1.0"
_SCHEDULER: Final = "scheduler/scheduler_config.json"
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


@dataclass(frozen=True, slots=True)
class Weights:
    """One network's weights: `folder` holds config.json and the weights, unless a single `file` holds the
    latter.

    With `seeded` there are no files: `folder` is only named after the component.
    """

    folder: Path
    file: Path | None = None
    seeded: Seeded | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The network's config.json."""
        return (
            read_json(self.folder / "config.json")
            if self.seeded is None
            else self.seeded.config(self.folder.name)
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that identifies the weights."""
        if self.seeded is not None:
            return ()
        own = (self.file,) if self.file is not None else tuple(_weight_files(self.folder))
        return (self.folder / "config.json", *own)


@dataclass(frozen=True, slots=True)
class Base:
    """The base that was available."""

    label: str
    root: Path
    """Folder with the configurations and tokenizers of every component."""
    file: Path | None
    passed_over: tuple[str, ...]
    """Candidates before it, each with the reason."""
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
            return {}  # SDXL's own says what is assumed where it says nothing
        return read_json(self.root / "model_index.json")


class _AbsentError(Exception):
    """A candidate is not there: the next one is tried."""


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
    """The first of `candidates` that is there; those passed over are named with their reasons.

    Raises:
        ConfigError: none is there.
        BuildError: one is there but incomplete (a damaged preference is never silently replaced).
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
        f"no base is available: {'; '.join(passed_over)}; correct `base` in the configuration or fetch one of them"
    )


def find_model(source: Source, *, subfolder: str) -> Weights:
    """A single network (a ControlNet, a VAE): its own folder, or `subfolder` of a pipeline's.

    Raises:
        ConfigError: not there.
        BuildError: there but incomplete.
    """
    if (seeded := _seeded(source)) is not None:
        return Weights(Path(subfolder), seeded=seeded)
    try:
        if source.file is not None:
            raise ConfigError(
                f"{source.file}: a {subfolder} is read from a diffusers folder or a hub id, not from a single file"
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
    return (
        None
        if source.architecture is None or source.seed is None
        else Seeded(source.architecture, source.seed)
    )


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
    """Folder with configurations for the single file `candidates[index]`."""
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
    """The repository's snapshot: the cached one where there is one, so that a build does not change under its
    feet.
    """
    from huggingface_hub import snapshot_download

    choice: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": list(_HUB_FILES),
        "ignore_patterns": list(_HUB_LEFT_OUT),
    }
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **choice))
        if any(cached.rglob("*.safetensors")):
            return cached
    except Exception as error:  # every failure of the cache look-up means: ask the hub
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
            raise BuildError(f"{base.root / tokenizer}: missing; a base has both tokenizers")
    read_json(base.root / _SCHEDULER)


def _check_component(folder: Path) -> None:
    read_json(folder / "config.json")
    if not _weight_files(folder):
        others = sorted(
            item.name for item in folder.iterdir() if item.suffix in (".bin", ".ckpt", ".pt", ".pth")
        )
        hint = f"; {others[0]} is pickled and never read: convert it" if others else ""
        raise BuildError(f"{folder}: no .safetensors weights{hint}")


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that diffusers reads: the plain ones where there are any, not their fp16 variant."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if ".fp16" not in file.name] or files


def load_network(
    component: str, weights: Weights, *, base: Base | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """The network in `dtype` (float32) on the CPU; `component` is one of `COMPONENTS` or `controlnet`.

    Raises:
        BuildError: the files do not fit the configuration.
    """
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    dtype = dtype or torch.float32
    if weights.seeded is not None:
        return make_network(component, weights.seeded, dtype=dtype)
    classes: dict[str, Any] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "controlnet": ControlNetModel,
    }
    try:
        if weights.file is not None:
            root = weights.folder.parent if base is None else base.root
            pipeline: Any = StableDiffusionXLPipeline.from_single_file(  # type: ignore[no-untyped-call]
                str(weights.file), config=str(root), local_files_only=True, torch_dtype=dtype
            )
            network: nn.Module = getattr(pipeline, component)
            return network.eval()
        variant = None if any(".fp16" not in file.name for file in _weight_files(weights.folder)) else "fp16"
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "variant": variant}
        network = classes[component].from_pretrained(weights.folder, torch_dtype=dtype, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BuildError(
            f"{weights.file or weights.folder}: does not load as {component}: {error}"
        ) from error
    return network.eval()
