"""Every LoRA that a deployment names, for `intaglio doctor`: what a build would do with it.

A deployment with `swap` publishes its registry; any other fuses the LoRAs that `fuse` names.
"""

from __future__ import annotations

from collections.abc import Iterator

from intaglio.contract.lora_registry import LoraEntry, LoraRegistry
from intaglio.errors import IntaglioError
from intaglio.loras.files import LayerTable
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.serving.findings import Finding
from intaglio_export.commands.source_report import SourceReport, problem_and_fix
from intaglio_export.weights.hub import NotFetchedError
from intaglio_export.weights.missing_lora_files import missing_file
from intaglio_export.weights.registry import check_file, check_publication, layers_of, registry_of

__all__ = ["lora_findings"]

_UNCOMPARED = " (not compared with the base, which is not here)"


def lora_findings(report: SourceReport) -> Iterator[Finding]:
    """One finding a LoRA. Without the base, files are opened but not compared with its layers."""
    deployment = report.deployment
    registry = registry_of(deployment)
    if not (deployment.loras or registry.loras):
        return
    table = None if report.base is None else layers_of(report.base)
    if deployment.swaps:
        yield from _published(report, registry, table)
    for lora in deployment.loras:
        if lora not in registry.loras or not deployment.swaps:
            yield _fused(report, lora, table) if lora in deployment.fuse else _unused(report, lora)
    if not deployment.swaps:
        for lora, entry in registry.loras.items():
            if entry.hub is not None:
                yield Finding(
                    f"lora {lora}", "note", f"hub:{entry.hub}: only a LoRA with `file` can be fused"
                )


def _published(report: SourceReport, registry: LoraRegistry, table: LayerTable | None) -> Iterator[Finding]:
    store = LoraStore(report.deployment.build_folder / LORAS_FOLDER)
    try:
        store.published()
    except IntaglioError as error:
        yield report.refused("loras", error)
        return
    for lora, entry in registry.loras.items():
        yield _published_one(report, lora, entry, store=store, table=table)


def _published_one(
    report: SourceReport, lora: str, entry: LoraEntry, *, store: LoraStore, table: LayerTable | None
) -> Finding:
    what = f"lora {lora}"
    alone = LoraRegistry(loras={lora: entry})
    try:
        found = check_publication(alone, store, table=table, swap=report.deployment.swap, fetch=False)
    except NotFetchedError as error:
        return report.to_download(what, error)
    except IntaglioError as error:
        return report.refused(what, error, from_hub=entry.hub is not None)
    if lora in found.absent:
        detail, fix = problem_and_fix(found.absent[lora])
        outcome = "stays as it was published" if lora in found.served.loras else "is left out"
        return Finding(what, "note", f"{detail} (a build goes on, and the LoRA {outcome})", fix)
    named = f"hub:{entry.hub}" if entry.file is None else str(entry.file)
    return Finding(what, "ok", f"{named}{'' if table else _UNCOMPARED}")


def _fused(report: SourceReport, lora: str, table: LayerTable | None) -> Finding:
    what = f"lora {lora}"
    path = report.deployment.loras[lora].path
    if not path.is_file():
        detail, fix = problem_and_fix(missing_file(path))
        return Finding(what, "missing", detail, fix)
    try:
        check_file(lora, path, table=table, swap="off")
    except IntaglioError as error:
        return report.refused(what, error)
    return Finding(what, "ok", f"{path}{'' if table else _UNCOMPARED}")


def _unused(report: SourceReport, lora: str) -> Finding:
    """A LoRA that a build does not look at."""
    path = report.deployment.loras[lora].path
    reason = "it is not in the registry" if report.deployment.swaps else "it is not fused"
    if path.is_file():
        return Finding(f"lora {lora}", "ok", f"{path} ({reason}, so a build does not use it)")
    detail, fix = problem_and_fix(missing_file(path))
    return Finding(f"lora {lora}", "note", f"{detail} ({reason}, so a build does without)", fix)
