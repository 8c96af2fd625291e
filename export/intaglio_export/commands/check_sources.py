"""Everything that a deployment names, for `intaglio doctor`: there, complete and of the right kind.

The functions that decide are those of a build, which are told to download nothing. So the doctor says what a
build would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.contract.presets import KINDS, load_presets
from intaglio.contract.sources import Source
from intaglio.errors import IntaglioError
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.serving.findings import Finding
from intaglio_export.commands.check_disk import disk_findings
from intaglio_export.commands.check_loras import lora_findings
from intaglio_export.commands.source_report import SourceReport
from intaglio_export.deployment.manifest import request_manifest
from intaglio_export.deployment.preset_loras import check_preset_loras
from intaglio_export.deployment.presets import checked_presets
from intaglio_export.deployment.support_files import poses_in
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.plan.architecture import architecture_of
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import STORE, StageStore
from intaglio_export.weights.detectors import fetched_detector
from intaglio_export.weights.hub import NotFetchedError
from intaglio_export.weights.repository_files import COMPONENTS
from intaglio_export.weights.sources import find_base, find_model

__all__ = ["source_findings"]


def source_findings(deployment: Deployment, path: Path) -> Iterator[Finding]:
    """One finding a source; then whether they fit together, and whether the disk has room for a build."""
    report = SourceReport(deployment, path)
    yield from _platform(report)
    yield from _base(report)
    sources: dict[str, Source] = dict(deployment.control_networks)
    if deployment.vae is not None:
        sources = {"vae": deployment.vae} | sources
    for name, source in sources.items():
        yield _model(report, name, source)
    yield from _fit(report, len(sources))
    yield from lora_findings(report)
    yield from _poses(report)
    yield from _detectors(report)
    yield from _identity(report)
    yield from _presets(report)
    yield from disk_findings(report)


def _platform(report: SourceReport) -> Iterator[Finding]:
    """Nothing where a build finds what it compiles for."""
    try:
        report.platform = resolve_platform(report.deployment)
    except IntaglioError as error:
        yield report.refused("platform", error)


def _base(report: SourceReport) -> Iterator[Finding]:
    """The candidates that a build passes over, and the one that it takes."""
    deployment = report.deployment
    replaced = () if deployment.vae is None else ("vae",)
    passed_over: tuple[str, ...] = ()
    try:
        report.base = find_base(deployment.base, replaced=replaced, fetch=False)
        passed_over = report.base.passed_over
        found = Finding("base", "ok", report.base.label)
    except NotFetchedError as error:
        passed_over = error.passed_over
        # Each candidate before the one that a build takes was passed over.
        source = deployment.base[len(passed_over)]
        report.lacks_configurations = source.file is not None
        found = report.to_download("base", error, named=str(source))
    except IntaglioError as error:
        from_hub = any(source.hub is not None for source in deployment.base)
        found = report.refused("base", error, from_hub=from_hub)
    for reason in passed_over:
        yield Finding("base", "note", f"{reason}; the next candidate is taken")
    yield found


def _model(report: SourceReport, name: str, source: Source) -> Finding:
    component = name.partition(".")[0]
    unet = None if report.base is None else report.base.weights("unet").config
    try:
        report.networks[name] = find_model(source, component=component, unet=unet, fetch=False)
    except NotFetchedError as error:
        return report.to_download(name, error)
    except IntaglioError as error:
        return report.refused(name, error, from_hub=source.hub is not None)
    return Finding(name, "ok", str(source))


def _fit(report: SourceReport, sources: int) -> Iterator[Finding]:
    """Whether base, VAE and ControlNets belong together; nothing where one of them is not here."""
    if report.base is None or len(report.networks) < sources:
        return
    configs = {name: report.base.weights(name).config for name in COMPONENTS if name not in report.networks}
    configs |= {name: weights.config for name, weights in report.networks.items()}
    try:
        architecture_of(configs, base=report.base.label)
    except IntaglioError as error:
        yield report.refused("sources", error)


def _poses(report: SourceReport) -> Iterator[Finding]:
    folder = report.deployment.poses
    if folder is None:
        return
    try:
        files = poses_in(folder)
    except IntaglioError as error:
        yield report.refused("poses", error)
        return
    library = PoseLibrary(folder)
    damaged = []
    for path in files:
        try:
            library.read(path.stem)
        except IntaglioError as error:
            damaged.append(Finding("poses", "note", str(error), "correct the file, or remove it"))
    yield Finding("poses", "ok", f"{folder}: {len(files) - len(damaged)} poses")
    yield from damaged


def _detectors(report: SourceReport) -> Iterator[Finding]:
    """None of them stops a build: pictures need no detector."""
    for name, source in report.deployment.detectors.items():
        what = f"detector.{name}"
        try:
            here = fetched_detector(source, fetch=False)
        except NotFetchedError as error:
            yield report.to_download(what, error)
            continue
        except IntaglioError as error:
            yield report.refused(what, error)
            continue
        absent = [str(path) for path in here.files if not path.is_file()]
        if here.hub is not None:
            fix = "with the hub in reach: " + report.build
            yield Finding(what, "note", f"hub:{here.hub}: neither in the cache nor on the hub", fix)
        elif absent:
            yield Finding(what, "note", f"{', '.join(absent)}: no such file", "put the file there")
        else:
            yield Finding(what, "ok", f"{source.kind}: {source.detector or here.folder or here.file}")


def _request_manifest(report: SourceReport) -> BuildManifest | None:
    """What requests to the build are read against; None where a source is not here or does not fit."""
    if report.platform is None or report.base is None:
        return None
    deployment = report.deployment
    wanted = set(deployment.control_networks)
    if deployment.vae is not None:
        wanted.add("vae")
    if not wanted <= set(report.networks):
        return None
    plan = Plan(deployment, report.platform, StageStore(deployment.build / STORE))
    try:
        return request_manifest(plan)
    except IntaglioError:
        return None  # another finding says what is wrong


def _presets(report: SourceReport) -> Iterator[Finding]:
    """What requests may name; the configuration could not be read if the file alone were wrong."""
    path = report.deployment.presets
    if path is None:
        return
    presets = load_presets(path)
    manifest = _request_manifest(report)
    try:
        if manifest is None:
            check_preset_loras(report.deployment, presets)
        else:
            checked_presets(report.deployment, manifest)
    except IntaglioError as error:
        yield report.refused("presets", error)
        return
    parts = {part: len(getattr(presets, part)) for part in KINDS.values()}
    yield Finding(
        "presets", "ok", f"{path}: " + ", ".join(f"{count} {part}" for part, count in parts.items())
    )


def _identity(report: SourceReport) -> Iterator[Finding]:
    """What reads faces stops no build either."""
    setting = report.deployment.identity
    if setting is None:
        return
    absent = [str(path) for path in setting.named.values() if not path.is_file()]
    if not setting.named:
        yield Finding("identity", "note", f"{setting.models}: has no ONNX file", "put a model package there")
    elif absent:
        yield Finding("identity", "note", f"{', '.join(absent)}: no such file", "put the file there")
    else:
        yield Finding("identity", "ok", f"{setting.kind}: {', '.join(sorted(setting.named))}")
