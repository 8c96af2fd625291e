"""Where weights come from: a diffusers folder, one .safetensors file, a hub id or a seed.

The first candidate that is available is used. Finding it is cheap and imports no torch, because a build with
nothing changed only needs paths; `intaglio_export.weights.load` reads the weights. Components are diffusers'
subfolders (`unet`, `text_encoder`, `text_encoder_2`, `vae`). A single file holds all of them; its
configurations and tokenizers come from the next candidate that has them.

Everything that can be said of a source without reading its weights is checked here, before anything is built:
its files, its configurations, and what a single file is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.contract.sdxl import without_context
from intaglio.contract.sources import ControlNetSource, Source
from intaglio.errors import BuildError, ConfigError
from intaglio.sampling.scheduler_config import SchedulerConfig
from intaglio.single_files import SDXL_HUB_ID, TOKENIZERS, needed_files
from intaglio_export.weights.checkpoint_files import network_files
from intaglio_export.weights.configuration import check_configuration, configuration_read
from intaglio_export.weights.controlnet_files import check_kind, config_of_file
from intaglio_export.weights.hub import AbsentError, HubFiles, NotFetchedError, hub_folder
from intaglio_export.weights.repository_files import (
    COMPONENTS,
    MODEL_INDEX,
    SCHEDULER_FILE,
    model_files,
    pipeline_files,
)
from intaglio_export.weights.seeded import ARCHITECTURES, Seeded, tokenizer_root
from intaglio_export.weights.single_file import check_single_file, prediction_of_file

__all__ = ["Base", "Weights", "component_of", "find_base", "find_model", "read_json"]

log = logging.getLogger(__name__)

_SUBFOLDERS: Final[Mapping[str, str]] = {"controlnet_union": "controlnet"}
"""Where a pipeline's folder has a component, if not under its own name."""


def component_of(network: str) -> str:
    """The component whose weights `network` has.

    Both VAE networks have those of `vae`. The context of a UNet or ControlNet has those of that network.
    """
    return "vae" if network in ("vae_decoder", "vae_encoder") else without_context(network)


@dataclass(frozen=True, slots=True)
class Weights:
    """One component's weights: `folder` holds config.json and the weights, unless a single `file` has them.

    With `seeded` there are no files: `folder` is only named after the component. So it is where `derived` is
    the configuration.
    """

    folder: Path
    file: Path | None = None
    seeded: Seeded | None = None
    derived: Mapping[str, Any] | None = None
    """Configuration of a single file that no config.json belongs to."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The network's config.json."""
        if self.seeded is not None:
            return self.seeded.config(self.folder.name)
        if self.derived is not None:
            return self.derived
        return read_json(self.folder / "config.json")

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that identifies the weights."""
        if self.seeded is not None:
            return ()
        if self.derived is not None:
            assert self.file is not None
            return (self.file,)
        config = self.folder / "config.json"
        if self.file is not None:
            return (config, self.file)
        names = network_files(self.folder, self.folder.name).names
        return (config, *(self.folder / name for name in names))


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
        """scheduler_config.json, with what a single file itself says of its prediction."""
        if self.seeded is not None:
            return self.seeded.scheduler
        stated = {} if self.file is None else prediction_of_file(self.file)
        return dict(read_json(self.root / SCHEDULER_FILE)) | stated

    @property
    def model_index(self) -> Mapping[str, Any]:
        """model_index.json."""
        if self.seeded is not None:
            return {}  # SDXL's own has the values that are assumed where the file names none
        return read_json(self.root / MODEL_INDEX)


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


def find_base(candidates: Sequence[Source], *, replaced: Collection[str] = (), fetch: bool = True) -> Base:
    """The first of `candidates` that is available; it names those passed over with their reasons.

    Components in `replaced` come from elsewhere and may be missing. Without `fetch` nothing is downloaded:
    the hub is only asked, and the decision is the same.

    Raises:
        ConfigError: none is available, or its configurations ask for what intaglio does not compute.
        NotFetchedError: without `fetch`, the first that is available must be downloaded.
        BuildError: one is there but incomplete. A damaged preference is never silently replaced.
    """
    components = [name for name in COMPONENTS if name not in replaced]
    passed_over: list[str] = []
    last: AbsentError | None = None
    for index, source in enumerate(candidates):
        if (seeded := _seeded(source)) is not None:
            return Base(str(source), tokenizer_root(), None, tuple(passed_over), seeded)
        try:
            if source.file is None:
                root = _source_folder(source, pipeline_files(components), fetch=fetch)
                base = Base(str(source), root, None, tuple(passed_over))
            else:
                file = _existing_file(source.file)
                root = _config_root(candidates, index, fetch=fetch)
                base = Base(str(source), root, file, tuple(passed_over))
        except AbsentError as absent:
            passed_over.append(f"{source}: {absent}")
            last = absent
            continue
        except NotFetchedError as error:
            raise NotFetchedError(error.source, error.size, passed_over=passed_over) from error
        _check_pipeline(base, components)
        if passed_over:
            log.warning("base falls back to %s; not available: %s", base.label, "; ".join(passed_over))
        return base
    raise ConfigError(
        f"no base is available: {'; '.join(passed_over)}; "
        "correct `base` in the configuration or fetch one of them"
    ) from last


def find_model(
    source: Source, *, component: str, unet: Mapping[str, Any] | None = None, fetch: bool = True
) -> Weights:
    """A single network, from its own folder or from a subfolder of a pipeline's. `component` is `vae`,
    `controlnet` or `controlnet_union`. Without `fetch` nothing is downloaded.

    `unet` is the configuration of the base's UNet, which a ControlNet in a single file shares; None: SDXL's.

    Raises:
        ConfigError: it is not available, or its configuration asks for what intaglio does not compute.
        NotFetchedError: without `fetch`, it must be downloaded.
        BuildError: it is there but incomplete, or a single file is no ControlNet of the base.
    """
    if (seeded := _seeded(source)) is not None:
        return Weights(Path(component), seeded=seeded)
    try:
        if source.file is not None:
            weights = _from_file(_existing_file(source.file), component, unet)
            _check_modes(source, weights)
            return weights
        subfolder = _SUBFOLDERS.get(component, component)
        folder = _source_folder(source, model_files(subfolder), fetch=fetch)
    except AbsentError as absent:
        raise ConfigError(
            f"{component} {source}: {absent}; correct the path in the configuration or fetch it"
        ) from absent
    if not (folder / "config.json").is_file() and (folder / subfolder / "config.json").is_file():
        folder = folder / subfolder
    names = network_files(folder, component).names
    if component != "vae":
        tensors = [folder / name for name in names if name.endswith(".safetensors")]
        check_kind(tensors, union=component == "controlnet_union")
    weights = Weights(folder)
    check_configuration(component, weights.config, source=str(source))
    _check_modes(source, weights)
    return weights


def _from_file(file: Path, component: str, unet: Mapping[str, Any] | None) -> Weights:
    if component == "vae":
        raise ConfigError(
            f"{file}: a vae cannot be read from a single file; name a diffusers folder or a hub id"
        )
    if unet is None:
        unet = ARCHITECTURES["sdxl-base-1.0"]["unet"]
    config = config_of_file(file, unet=unet, union=component == "controlnet_union")
    return Weights(Path(component), file, derived=config)


def _check_modes(source: Source, weights: Weights) -> None:
    """The controls that a union is asked to serve are types that it has."""
    if not isinstance(source, ControlNetSource) or not source.union:
        return
    types = configuration_read("controlnet_union", weights.config)["num_control_type"]
    for control, served in source.union.items():
        if served.mode >= types:
            raise ConfigError(
                f"{source}: union says {control} has mode {served.mode}, but it has {types} control types; "
                f"take a mode from 0 to {types - 1}"
            )


def _configurations() -> HubFiles:
    """What a single file needs of another base: everything but weights."""
    return pipeline_files(())


def _seeded(source: Source) -> Seeded | None:
    if source.architecture is None or source.seed is None:
        return None
    return Seeded(source.architecture, source.seed)


def _source_folder(source: Source, files: HubFiles, *, fetch: bool) -> Path:
    if source.hub is not None:
        return hub_folder(source.hub, source.revision, files, fetch=fetch)
    assert source.folder is not None
    if not source.folder.is_dir():
        raise AbsentError("no such folder")
    return source.folder


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise AbsentError("no such file")
    return path


def _config_root(candidates: Sequence[Source], index: int, *, fetch: bool) -> Path:
    """Folder with the configurations for the single file `candidates[index]`."""
    reasons: list[str] = []
    for source in (*candidates[index + 1 :], *candidates[:index], Source(hub=SDXL_HUB_ID)):
        if source.file is None and source.architecture is None:
            try:
                return _source_folder(source, _configurations(), fetch=fetch)
            except AbsentError as absent:
                reasons.append(f"{source}: {absent}")
    raise BuildError(
        f"{candidates[index].file}: a single file has no configurations or tokenizers; "
        f"list a diffusers folder (or hub: {SDXL_HUB_ID}) after it ({'; '.join(reasons)})"
    )


# --- checks before anything is built -----------------------------------------------------------------------


def _check_pipeline(base: Base, components: Collection[str]) -> None:
    index = base.model_index
    replaced = [name for name in COMPONENTS if name not in components]
    own = {key: value for key, value in index.items() if key not in replaced}
    check_configuration("pipeline", own, source=base.label)
    # The UNet says best what kind of checkpoint it is, so it comes first.
    for component in sorted(components, key=("unet", *COMPONENTS).index):
        path = base.root / component / "config.json"
        if not path.is_file():
            raise BuildError(
                f"{path}: missing; a base has {', '.join(COMPONENTS)} (`vae:` may name the last elsewhere)"
            )
        check_configuration(component, read_json(path), source=base.label)
    try:
        SchedulerConfig.from_mapping(base.scheduler)
    except ConfigError as error:
        raise ConfigError(f"{base.label}: {error}") from error
    for name in needed_files(lambda name: (base.root / name).is_file()):
        if name.partition("/")[0] in TOKENIZERS and not (base.root / name).is_file():
            raise BuildError(f"{base.root / name}: missing; a base must have both tokenizers")
    if base.file is None:
        for component in components:
            network_files(base.root / component, component)
    else:
        unet = configuration_read("unet", base.weights("unet").config)
        check_single_file(base.file, unet=unet, replaced=replaced)
