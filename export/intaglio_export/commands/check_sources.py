"""Every source that a deployment names, for `intaglio doctor`: there, complete and of the right kind.

Nothing is downloaded and nothing is imported that loads weights.
"""

# ruff: noqa: PLC0415  (slow to import; only repositories of the hub need it)

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from intaglio.contract.config import Deployment
from intaglio.contract.sources import Source
from intaglio.errors import IntaglioError
from intaglio.serving.findings import Finding
from intaglio_export.plan.architecture import architecture_of
from intaglio_export.weights.hub import AbsentError, HubFiles, cached_snapshot, files_to_fetch
from intaglio_export.weights.repository_files import COMPONENTS, model_files, pipeline_files
from intaglio_export.weights.sources import Base, Weights, find_base, find_model

__all__ = ["source_findings"]


@dataclass
class _Report:
    """What is known so far of one deployment's sources."""

    deployment: Deployment
    path: Path
    """Of the YAML file."""
    base: Base | None = None
    networks: dict[str, Weights] = field(default_factory=dict)
    """The sources beside the base that are here."""
    to_fetch: dict[str, int] = field(default_factory=dict)
    """Bytes to download by source."""

    @property
    def build(self) -> str:
        return f"intaglio build {self.path}"


def source_findings(deployment: Deployment, path: Path) -> Iterator[Finding]:
    """One finding a source; then whether they fit together, and whether the disk holds the downloads."""
    report = _Report(deployment, path)
    yield from _base(report)
    sources: dict[str, tuple[Source, str]] = {}
    if deployment.vae is not None:
        sources["vae"] = (deployment.vae, "vae")
    for control, named in deployment.controlnets.items():
        sources[f"controlnet.{control}"] = (named, "controlnet")
    for name, (source, subfolder) in sources.items():
        yield _model(report, name, source, subfolder)
    yield from _fit(report, len(sources))
    yield from _loras(report)
    yield from _disk(report)


def _base(report: _Report) -> Iterator[Finding]:
    """The candidates up to the one that a build takes."""
    candidates = report.deployment.base
    replaced = () if report.deployment.vae is None else ("vae",)
    files = pipeline_files([name for name in COMPONENTS if name not in replaced])
    reason = ""
    for index, source in enumerate(candidates):
        if source.hub is not None and not _is_cached(source, files):
            found = _fetchable(report, "base", source, files)
            if isinstance(found, Finding):
                yield found
                return
            reason = f"{source}: {found}"
        elif _is_absent(source):
            reason = f"{source}: no such {'file' if source.file is not None else 'folder'}"
        else:
            others = (*candidates[index + 1 :], *candidates[:index])
            yield _base_that_is_here(report, source, others, replaced)
            return
        if index + 1 < len(candidates):
            yield Finding("base", "note", f"{reason}; the next candidate is tried")
    yield Finding("base", "missing", reason, f"correct `base` in {report.path}, or {_again(report)}")


def _base_that_is_here(
    report: _Report, source: Source, others: Sequence[Source], replaced: Collection[str]
) -> Finding:
    """A single file takes its configurations from `others`, which may have to be downloaded."""
    lenders = [other for other in others if source.file is not None and other.file is None]
    try:
        report.base = find_base((source, *lenders), replaced=replaced, fetch=False)
    except IntaglioError as error:
        configurations = pipeline_files(())
        for lender in lenders:
            if lender.hub is not None and not _is_cached(lender, configurations):
                return _lent(report, source, lender, configurations)
        return _refused("base", str(error))
    return Finding("base", "ok", str(source))


def _lent(report: _Report, source: Source, lender: Source, files: HubFiles) -> Finding:
    found = _fetchable(report, "base", lender, files)
    detail = f"{source}: its configurations come from {lender}"
    if isinstance(found, Finding):
        return Finding(
            "base", "note", f"{detail}: {_bytes(report.to_fetch['base'])} to download", report.build
        )
    return Finding("base", "missing", f"{detail}: {found}", _again(report))


def _is_cached(source: Source, files: HubFiles) -> bool:
    assert source.hub is not None
    snapshot = cached_snapshot(source.hub, source.revision)
    return snapshot is not None and files.missing(snapshot) is None


def _is_absent(source: Source) -> bool:
    if source.file is not None:
        return not source.file.is_file()
    return source.folder is not None and not source.folder.is_dir()


def _model(report: _Report, name: str, source: Source, subfolder: str) -> Finding:
    files = model_files(subfolder)
    if source.hub is not None and not _is_cached(source, files):
        found = _fetchable(report, name, source, files)
        if isinstance(found, Finding):
            return found
        fix = f"correct {report.path}, or {_again(report)}"
        return Finding(name, "missing", f"{source}: {found}", fix)
    try:
        report.networks[name] = find_model(source, subfolder=subfolder, fetch=False)
    except IntaglioError as error:
        return _refused(name, str(error))
    return Finding(name, "ok", str(source))


def _fetchable(report: _Report, name: str, source: Source, files: HubFiles) -> Finding | Exception:
    """What a build would download; the reason where it cannot."""
    assert source.hub is not None
    try:
        sizes = files_to_fetch(source.hub, source.revision, files)
    except (IntaglioError, AbsentError) as error:
        return error
    if not sizes:
        return IntaglioError("the repository has not all that is needed")
    report.to_fetch[name] = sum(sizes.values())
    return Finding(name, "note", f"{source}: {_bytes(report.to_fetch[name])} to download", report.build)


def _again(report: _Report) -> str:
    return f"with the hub in reach: {report.build}"


def _refused(name: str, message: str) -> Finding:
    detail, _, fix = message.rpartition("; ")
    return Finding(name, "missing", detail or message, fix if detail else "")


def _fit(report: _Report, sources: int) -> Iterator[Finding]:
    """Whether base, VAE and ControlNets belong together; nothing where one of them is not here."""
    if report.base is None or len(report.networks) < sources:
        return
    configs = {name: report.base.weights(name).config for name in COMPONENTS if name not in report.networks}
    configs |= {name: weights.config for name, weights in report.networks.items()}
    try:
        architecture_of(configs, base=report.base.label)
    except IntaglioError as error:
        yield _refused("sources", str(error))


def _loras(report: _Report) -> Iterator[Finding]:
    deployment = report.deployment
    for name, lora in deployment.loras.items():
        what = f"lora {name}"
        if lora.path.is_file():
            yield Finding(what, "ok", str(lora.path))
            continue
        needed = name in deployment.fuse or deployment.swap != "off"
        detail = f"{lora.path}: no such file"
        fix = f"train it or correct its path in {deployment.registry or report.path}"
        if needed:
            yield Finding(what, "missing", detail, fix)
        else:
            yield Finding(what, "note", f"{detail} (it is not fused, so a build does without)", fix)


def _disk(report: _Report) -> Iterator[Finding]:
    """Whether the cache's disk holds what is to be downloaded."""
    if not report.to_fetch:
        return
    from huggingface_hub import constants

    place = _existing(Path(constants.HF_HUB_CACHE))
    needed, free = sum(report.to_fetch.values()), shutil.disk_usage(place).free
    detail = f"{_bytes(needed)} to download to {constants.HF_HUB_CACHE}, {_bytes(free)} free"
    if needed <= free:
        yield Finding("downloads", "ok", detail)
    else:
        yield Finding("downloads", "missing", detail, "free that much there, or set HF_HOME to another disk")


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _bytes(count: int) -> str:
    units: Sequence[str] = ("bytes", "KiB", "MiB", "GiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count / 2 ** (10 * power):.3g} {units[power]}"
