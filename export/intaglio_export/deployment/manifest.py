"""What a finished build says of itself: the manifest that the serving processes read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import BuildManifest, NetworkFile, UnionPlace, content_key
from intaglio.contract.config import Deployment
from intaglio.contract.detectors import DetectorSource
from intaglio.contract.identity import Identity
from intaglio.contract.yaml_files import Strict
from intaglio.errors import BuildError
from intaglio.loras.hashes import short_hash
from intaglio.loras.targets import SWAPPED
from intaglio.sampling.scheduler_config import SchedulerConfig
from intaglio.serving.memory import fitting_controlnets
from intaglio_export.deployment.repository import RepositoryOptions, repository_files
from intaglio_export.deployment.support_files import SupportFiles
from intaglio_export.engines.job import ENGINE_FILES
from intaglio_export.plan.plan import PRISTINE_FILE, Plan
from intaglio_export.plan.records import StageRecord, read_record
from intaglio_export.plan.stages import Stage
from intaglio_export.weights.configuration import configuration_read
from intaglio_export.weights.latents import LatentStatistics

__all__ = [
    "NOT_VERIFIED",
    "build_key",
    "build_manifest",
    "pristine_file",
    "repository_options",
    "request_manifest",
]

_NO_IDENTITY: Final[dict[str, Any]] = {
    "key": True,
    "rebuild": True,
    "base": True,
    "stages": True,
    # Absolute paths of this machine. `config_digest` has them as the YAML file does.
    "provenance": {"c2pa"},
    "poses_source": True,
    "detectors": True,  # `build_key` adds what does not depend on the machine, as of `identity`
    "identity": True,
}
"""What a manifest says that does not make it another build."""
NOT_VERIFIED: Final = "not verified: no GPU of the target here"


def build_manifest(plan: Plan, support: SupportFiles, *, asked: Deployment, rebuild: str) -> BuildManifest:
    """The manifest of `plan`, all of whose stages are done.

    `asked` is the deployment as the YAML file has it; `rebuild` is the command that makes the build again.

    Raises:
        BuildError: the record of a stage disappeared meanwhile.
    """
    values = _configured(plan) | {
        "config_digest": asked.digest,
        "rebuild": rebuild,
        "versions": _versions(plan.stages),
        "stages": {stage.name: stage.key for stage in plan.stages},
        "networks": {name: _network_file(plan, name) for name in plan.networks},
        "loras": tuple(lora.model_dump() for lora in plan.loras),
        "lora_hashes": {lora.id: short_hash(plan.deployment.loras[lora.id].path) for lora in plan.loras},
        "tokenizers": support.tokenizers,
        "poses": support.poses,
        "poses_source": None if asked.poses is None else str(asked.poses.resolve()),
        "detectors": support.detectors,
        "identity": support.identity,
        "files": {name: plan.store.digests.digest(path) for name, path in support.sources.items()},
    }
    draft = _with_residents(BuildManifest(key="0" * 64, **values), plan.deployment)
    repository = repository_files(repository_options(plan, build_key=""))
    return draft.model_copy(update={"key": build_key(draft, repository)})


def _with_residents(manifest: BuildManifest, deployment: Deployment) -> BuildManifest:
    """`manifest` with the number of ControlNets that a server keeps open, now that their sizes are known."""
    count = fitting_controlnets(deployment, manifest)
    if not count or manifest.execution.resident_controlnets != "auto":
        return manifest
    execution = manifest.execution.model_copy(update={"resident_controlnets": count})
    return manifest.model_copy(update={"execution": execution})


def request_manifest(plan: Plan) -> BuildManifest:
    """What requests to the build of `plan` are read against. It names no files, since no stage need be done.

    Raises:
        ConfigError, BuildError, LoraRefused: something that the deployment names is missing or damaged.
    """
    values = _configured(plan) | {
        "key": "0" * 64,
        "config_digest": plan.deployment.digest,
        "rebuild": "",
        "versions": {},
        "networks": {},
        "loras": tuple(lora.model_dump() for lora in plan.loras),
        "tokenizers": ("", ""),
        "poses": None,
        "files": {},
    }
    return BuildManifest(**values)


def build_key(manifest: BuildManifest, repository: Mapping[str, str]) -> str:
    """The key of the whole build; it is the same wherever the build was made.

    `repository` are the texts of the model repository, without the key.
    """
    identity = manifest.model_dump(mode="json", exclude=_NO_IDENTITY)
    detectors = {name: _detector_identity(source) for name, source in manifest.detectors.items()}
    added: dict[str, Any] = {"detectors": detectors, "repository": dict(repository)}
    if manifest.identity is not None:
        added["identity"] = _faces_identity(manifest.identity)
    return content_key(identity | added)


def _detector_identity(source: DetectorSource) -> dict[str, Any]:
    """What is the same on every machine. A path in the build follows the file's content; that of a missing
    file is absolute.
    """
    return _on_every_machine(source, ("file", "persons", "folder"))


def _faces_identity(setting: Identity) -> dict[str, Any]:
    """The same of what reads faces. Where the characters lie depends on the machine."""
    return _on_every_machine(setting, ("characters", "detector", "recognition", "models"))


def _on_every_machine(value: Strict, paths: tuple[str, ...]) -> dict[str, Any]:
    """`value` without those of its `paths` that are absolute."""
    found = {key: getattr(value, key) for key in paths}
    absolute = {key for key, path in found.items() if path is not None and path.is_absolute()}
    return value.model_dump(mode="json", exclude=absolute)


def _configured(plan: Plan) -> dict[str, Any]:
    """Values that are known before any stage is done."""
    deployment = plan.deployment
    pipeline = configuration_read("pipeline", plan.base.model_index)
    latents = LatentStatistics.of(configuration_read("vae", plan.components["vae"].config))
    return {
        "base": _base_label(plan),
        "architecture": plan.architecture,
        "scheduler": SchedulerConfig.from_mapping(plan.base.scheduler).to_mapping(),
        "scaling_factor": latents.scaling_factor,
        "latents_mean": latents.mean,
        "latents_std": latents.std,
        "force_zeros_for_empty_prompt": bool(pipeline["force_zeros_for_empty_prompt"]),
        "precision": plan.precision,
        "runtime": plan.platform.runtime,
        "target": plan.platform.target,
        "profiles": deployment.profiles,
        "limits": deployment.limits,
        "defaults": deployment.defaults,
        "method": deployment.built_method,
        "provenance": deployment.provenance,
        "execution": deployment.execution,
        **_controls(deployment),
        "swap": deployment.swap,
        "detector_process": deployment.detector_process,
    }


def _controls(deployment: Deployment) -> dict[str, Any]:
    """What requests may name, and which network computes it."""
    controls = deployment.controls
    unions = {}
    for control, served in controls.items():
        if served.mode is not None:
            unions[control] = UnionPlace(network=served.network, mode=served.mode)
    palettes = {control: served.palette for control, served in controls.items() if served.palette is not None}
    types = {control: served.type for control, served in controls.items()}
    return {"controlnets": types, "unions": unions, "palettes": palettes}


def _versions(stages: tuple[Stage, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in stages:
        found |= stage.versions
    return found


def repository_options(plan: Plan, *, build_key: str) -> RepositoryOptions:
    """What Triton's model repository takes from `plan`."""
    server = plan.deployment.server
    on_card = plan.platform.runtime != "onnxruntime"
    gpu, gpus = _drawing_cards(plan.deployment) if on_card else (None, "")
    return RepositoryOptions(
        build_key=build_key,
        queue_size=server.queue_size,
        workers=server.workers,
        gpu=gpu,
        gpus=gpus,
        instances=server.instances,
        hang_seconds=server.hang_seconds,
        detectors=bool(plan.deployment.detectors),
        identity=plan.deployment.identity is not None,
    )


def _drawing_cards(deployment: Deployment) -> tuple[int | None, str]:
    """`gpu` and `gpus` of the repository's options: the only card, or the text that names several."""
    match deployment.server.gpus:
        case None:
            return deployment.execution.gpu, ""
        case (only,):
            return only, ""
        case "all":
            return None, "all"
        case several:
            return None, ",".join(map(str, several))


def _network_file(plan: Plan, network: str) -> NetworkFile:
    stage = plan.engine(network)
    files = dict(_record(plan, stage).files)
    source = pristine_file(plan, network)
    if source is not None:
        files[PRISTINE_FILE] = plan.store.digests.digest(source)
    folder = _engine_folder(network, files)
    return NetworkFile(
        path=f"{folder}/{ENGINE_FILES[plan.platform.runtime]}",
        key=stage.key,
        files={f"{folder}/{name}": digest for name, digest in files.items()},
        pristine=None if source is None else f"{folder}/{PRISTINE_FILE}",
        **_verification(plan, network),
    )


def pristine_file(plan: Plan, network: str) -> Path | None:
    """The store's pristine weights that lie beside the engine of `network`; None where there are none."""
    if not plan.deployment.swaps:
        return None
    for component in SWAPPED:
        if component == network:
            return plan.store.path(plan.pristine(component)) / PRISTINE_FILE
    return None


def _engine_folder(network: str, files: Mapping[str, FileDigest]) -> str:
    """A name from the content. The stage's key would not do: two engines of one key may differ in their
    bytes.
    """
    key = content_key({name: digest.sha256 for name, digest in files.items()})
    return f"engines/{network}-{key[:12]}"


def _verification(plan: Plan, network: str) -> dict[str, Any]:
    stage = plan.verify(network)
    if stage is None:
        return {"verification": NOT_VERIFIED}
    notes = _record(plan, stage).notes
    return {
        "verification": (
            f"relative error {notes['relative_error']:.2g} against PyTorch, tolerance {plan.tolerance:g}"
        ),
        "activation_bytes": notes["activation_bytes"],
    }


def _record(plan: Plan, stage: Stage) -> StageRecord:
    record = read_record(plan.store.path(stage))
    if record is None:
        raise BuildError(f"{stage.name}: its record disappeared while building; build again")
    return record


def _base_label(plan: Plan) -> str:
    """The base's name for people. A path is relative to the YAML file, so it is the same on every
    machine.
    """
    label = Path(plan.base.label)
    if plan.base.seeded is None and label.is_absolute():
        return os.path.relpath(label, plan.deployment.folder)
    return plan.base.label
