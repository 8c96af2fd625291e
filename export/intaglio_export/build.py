"""`intaglio build`: run the plan's stages, then put the deployment together.

    build/.stages/<stage>/<key>/        every stage's result, shared by all deployments
    build/<name>/manifest.json          what the serving processes read; written last
    build/<name>/engines/<network>-<digest>/  hard links into the store (copies across file systems), named by what they hold
    build/<name>/tokenizers/<digest>, poses/<digest>, model_repository
A deployment folder is self-contained: it may be moved or copied to another machine. What a running server has
of an earlier build stays until it is served no more (`intaglio.builds.holds`) and goes with the build after
that.
"""

# ruff: noqa: PLC0415  (torch is imported only when a stage must run)

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import ValidationError

from intaglio.builds.holds import PARTS, listed_files, locked_unless_held
from intaglio.builds.manifest import (
    MANIFEST_NAME,
    RUNTIME_CACHE_NAME,
    BuildManifest,
    FileDigest,
    NetworkFile,
    content_key,
    read_manifest,
    read_record,
    write_manifest,
)
from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import BuildError, ConfigError
from intaglio.loras.targets import SWAPPED
from intaglio.sampling.schedules import SchedulerConfig
from intaglio.whole_files import storage_problem
from intaglio_export.deployment.repository import (
    REPOSITORY,
    RepositoryOptions,
    repository_files,
    write_repository,
)
from intaglio_export.engines.compile import ENGINE_FILES, Platform, resolve_platform
from intaglio_export.engines.verify import NOT_VERIFIED
from intaglio_export.plan.plan import PRISTINE_FILE, Plan, component_of
from intaglio_export.plan.stages import Stage, StageOutcome, StageStore
from intaglio_export.weights.registry import check_registry, publish_registry

__all__ = ["BuildOptions", "BuildResult", "Reporter", "build_deployment"]

STORE: Final = ".stages"
_TYPICAL_SECONDS: Final = {"fuse": 10.0, "onnx": 4.0, "engine": 4.0, "verify": 2.0, "pristine": 1.0}
"""For the progress bar, until a stage has run once here."""
_ASSEMBLE: Final = "repository"
_COMPILERS: Final = 1
"""Networks compiled at once: with two, SDXL's UNet beside its ControlNet, a build took 30 GiB of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the command line says beside the configuration."""

    runtime: str | None = None
    target: str | None = None
    output: Path | None = None
    """Folder of all builds instead of the configuration's `build`."""
    force: bool = False

    @property
    def arguments(self) -> str:
        """As typed, for the command that rebuilds."""
        named = (("runtime", self.runtime), ("target", self.target), ("output", self.output))
        return "".join(f" --{name} {value}" for name, value in named if value is not None)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build."""

    folder: Path
    manifest: BuildManifest
    platform: Platform
    outcomes: tuple[StageOutcome, ...]
    messages: tuple[str, ...]
    """What the user should know: fallbacks, engines that were not verified."""


class Reporter(Protocol):
    """Who watches a build."""

    def planned(self, seconds: float) -> None:
        """The work ahead, in expected seconds."""

    def started(self, stage: str, reason: str) -> None: ...
    def finished(self, outcome: StageOutcome, expected: float) -> None: ...
    def waiting(self) -> None:
        """Another build has the store."""


def build_deployment(config: Path, options: BuildOptions, *, reporter: Reporter) -> BuildResult:
    """Build what `config` describes; only what changed is done again.

    Raises:
        ConfigError, BuildError, MissingExtra: with what was wrong and what would be right.
    """
    asked = load_deployment(config)
    deployment = _overridden(asked, options)
    platform = resolve_platform(deployment)
    store = StageStore(deployment.build / STORE)
    with store.locked(waiting=reporter.waiting):
        plan = Plan(deployment, platform, store)
        SchedulerConfig.from_mapping(
            plan.base.scheduler
        )  # the solvers must know it: better said now than by the server
        if plan.swaps:
            check_registry(plan)
        outcomes = _run_stages(plan, options, reporter)
        folder = _deployment_folder(deployment, options)
        if plan.swaps:
            publish_registry(plan, folder)
        manifest = _manifest(plan, asked, rebuild=f"intaglio build {_shown(config)}{options.arguments}")
        outcome = _assemble(plan, manifest, folder, force=options.force)
        reporter.finished(outcome, 0.0)
        store.digests.save()
    return BuildResult(folder, manifest, platform, (*outcomes, outcome), _messages(plan))


def _overridden(deployment: Deployment, options: BuildOptions) -> Deployment:
    """`deployment` with the command line's runtime, target and output, checked again."""
    changes: dict[str, Any] = {}
    if options.runtime is not None:
        changes["runtime"] = options.runtime
    if options.target is not None:
        changes["target"] = options.target
    if options.output is not None:
        changes["build"] = options.output.resolve()
    if options.runtime == "onnxruntime" and options.target is None:
        changes["target"] = "cpu"
    try:
        return Deployment.model_validate({**deployment.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError("; ".join(str(item["msg"]) for item in error.errors())) from error


def _deployment_folder(deployment: Deployment, options: BuildOptions) -> Path:
    """`build/<name>`; ahead of time for a card named on the command line, `build/<name>-<target>`, so this
    machine's build stays.
    """
    if options.target in (None, "auto", "cpu"):
        return deployment.build_folder
    return deployment.build / f"{deployment.name}-{options.target}"


def _run_stages(plan: Plan, options: BuildOptions, reporter: Reporter) -> tuple[StageOutcome, ...]:
    reasons = {stage.name: "forced" if options.force else plan.store.why(stage) for stage in plan.stages}
    expected = {
        stage.name: plan.store.expected_seconds(
            stage, otherwise=_TYPICAL_SECONDS[stage.name.partition("/")[0]]
        )
        for stage in plan.stages
        if reasons[stage.name] is not None
    }
    reporter.planned(sum(expected.values()))

    def run(stage: Stage) -> StageOutcome:
        if reasons[stage.name] is not None:
            reporter.started(stage.name, str(reasons[stage.name]))
        outcome = plan.store.run(stage, force=options.force)
        reporter.finished(outcome, expected.get(stage.name, 0.0))
        return outcome

    with _quiet_libraries() if expected else contextlib.nullcontext():
        if plan.platform.runtime == "onnxruntime":
            return tuple(run(stage) for stage in plan.stages)
        return _run_overlapped(plan.stages, run)


def _run_overlapped(
    stages: Sequence[Stage], run: Callable[[Stage], StageOutcome]
) -> tuple[StageOutcome, ...]:
    """TensorRT compiles on one core for minutes a network: meanwhile the next are exported, and what is
    compiled is verified.

    The largest go first. A failure is raised once the compilation that has begun is done.
    """
    done: dict[str, StageOutcome] = {}
    compiling: dict[str, Future[StageOutcome]] = {}
    checks = {stage.name: stage for stage in stages if stage.name.startswith("verify/")}
    with ThreadPoolExecutor(_COMPILERS) as pool:
        try:
            for stage in sorted(stages, key=_by_size):
                kind, _, network = stage.name.partition("/")
                if kind == "engine":
                    compiling[network] = pool.submit(run, stage)
                elif kind != "verify":  # those wait for the engines
                    done[stage.name] = run(stage)
            for network, future in compiling.items():
                outcome = future.result()
                done[outcome.name] = outcome
                if (check := checks.get(f"verify/{network}")) is not None:
                    done[check.name] = run(check)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(done[stage.name] for stage in stages)


def _by_size(stage: Stage) -> int:
    """Sorts the networks by how long they take; `fuse`, which all need, first."""
    component = component_of(stage.name.partition("/")[2])
    order = ("", "unet", "controlnet", "text_encoder_2")
    kind = component.partition(".")[0]
    return order.index(kind) if kind in order else len(order)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """diffusers' and transformers' own progress bars and notes would tear ours."""
    import warnings

    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _manifest(plan: Plan, asked: Deployment, *, rebuild: str) -> BuildManifest:
    deployment, platform = plan.deployment, plan.platform
    networks = {name: _network_file(plan, name) for name in plan.networks}
    files = {name: plan.store.digests.digest(path) for name, path in plan.support_files.items()}
    values: dict[str, Any] = {
        "config_digest": asked.digest,
        "rebuild": rebuild,
        "base": plan.base_label,
        "architecture": plan.architecture,
        "scheduler": plan.base.scheduler,
        "scaling_factor": float(plan.components["vae"].config["scaling_factor"]),
        "force_zeros_for_empty_prompt": bool(plan.base.model_index.get("force_zeros_for_empty_prompt", True)),
        "precision": deployment.precision,
        "runtime": platform.runtime,
        "target": platform.target,
        "versions": {name: version for stage in plan.stages for name, version in stage.versions.items()},
        "profiles": deployment.profiles,
        "limits": deployment.limits,
        "defaults": deployment.defaults,
        "execution": deployment.execution,
        "networks": networks,
        "controlnets": {control: source.type for control, source in deployment.controlnets.items()},
        "swap": deployment.swap,
        "loras": tuple(lora.record for lora in plan.loras),
        "tokenizers": plan.tokenizer_folders,
        "poses": plan.pose_folder,
        "files": files,
    }
    draft = BuildManifest(key="0" * 64, **values)
    identity = draft.model_dump(mode="json", exclude={"key", "rebuild", "base"})
    identity["repository"] = repository_files(_repository_options(deployment, platform, ""))
    return draft.model_copy(update={"key": content_key(identity)})


def _shown(path: Path) -> str:
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


def _engine_folder(network: str, files: Mapping[str, FileDigest]) -> str:
    """Under a name of its content: a stage's key would not do, for engines are not the same to the byte each
    time they are made.
    """
    return f"engines/{network}-{content_key({name: digest.sha256 for name, digest in files.items()})[:12]}"


def _network_file(plan: Plan, network: str) -> NetworkFile:
    stage = plan.engine(network)
    record = read_record(plan.store.path(stage))
    if record is None:
        raise BuildError(f"engine/{network}: its record disappeared while building; build again")
    files = dict(record.files)
    if plan.swaps and (source := _pristine_file(plan, network)) is not None:
        files[PRISTINE_FILE] = plan.store.digests.digest(source)
    folder = _engine_folder(network, files)
    return NetworkFile(
        path=f"{folder}/{ENGINE_FILES[plan.platform.runtime]}",
        key=stage.key,
        files={f"{folder}/{name}": digest for name, digest in files.items()},
        pristine=f"{folder}/{PRISTINE_FILE}" if PRISTINE_FILE in files else None,
        **_verification(plan, network),
    )


def _pristine_file(plan: Plan, network: str) -> Path | None:
    """What LoRAs change of the component `network`, in the store; None for a network that is none of these."""
    component = next((one for one in SWAPPED if one == network), None)
    return None if component is None else plan.store.path(plan.pristine(component)) / PRISTINE_FILE


def _verification(plan: Plan, network: str) -> dict[str, Any]:
    stage = plan.verify(network)
    if stage is None:
        return {"verification": NOT_VERIFIED}
    record = read_record(plan.store.path(stage))
    if record is None:
        raise BuildError(f"verify/{network}: its record disappeared while building; build again")
    error, tolerance = record.notes["relative_error"], plan.deployment.verify_tolerance
    return {
        "verification": f"relative error {error:.2g} against PyTorch, tolerance {tolerance:g}",
        "activation_bytes": record.notes["activation_bytes"],
    }


def _repository_options(deployment: Deployment, platform: Platform, key: str) -> RepositoryOptions:
    server = deployment.server
    return RepositoryOptions(
        build_key=key,
        queue_size=server.queue_size,
        workers=server.workers,
        gpu=platform.runtime != "onnxruntime",
    )


def _assemble(plan: Plan, manifest: BuildManifest, folder: Path, *, force: bool) -> StageOutcome:
    """Put the deployment folder together; its manifest changes last, so a reader sees the old build or the
    new one.
    """
    started = time.perf_counter()
    reason = "forced" if force else _assembly_reason(plan, manifest, folder)
    if reason is None:
        _remove_unlisted(folder, manifest)  # what was served when this was built
        return StageOutcome(_ASSEMBLE, False, "unchanged", 0.0)
    sources: dict[str, Path] = dict(plan.support_files)
    for network, file in manifest.networks.items():
        store = plan.store.path(plan.engine(network))
        sources |= {name: store / Path(name).relative_to(Path(file.path).parent) for name in file.files}
        if file.pristine is not None and (store_file := _pristine_file(plan, network)) is not None:
            sources[file.pristine] = store_file
        compiled = Path(file.path).with_name(RUNTIME_CACHE_NAME)
        if (store / compiled.name).is_file() and not (folder / compiled).is_file():
            sources[str(compiled)] = store / compiled.name  # what verification compiled for this card
    options = _repository_options(plan.deployment, plan.platform, manifest.key)
    known = {name: digest for network in manifest.networks.values() for name, digest in network.files.items()}
    try:
        for name, source in sources.items():
            digest = known.get(name) or manifest.files.get(name)
            if force or not _is_placed(plan, folder / name, digest):  # a server may be reading what is
                _place(
                    source,
                    folder / name,
                    linked=name.startswith("engines/") and not name.endswith(RUNTIME_CACHE_NAME),
                )
        write_repository(folder / REPOSITORY, options)
        write_manifest(folder, manifest)
        _remove_unlisted(folder, manifest)
    except OSError as error:
        raise BuildError(
            f"{folder}: {storage_problem(error)}; the build that was there is still whole"
        ) from error
    for name, source in sources.items():
        if name in known and (folder / name).samefile(source):
            plan.store.digests.remember(folder / name, known[name])  # a link: read and hashed already
        else:
            plan.store.digests.digest_unchecked(folder / name)
    return StageOutcome(_ASSEMBLE, True, reason, time.perf_counter() - started)


def _assembly_reason(plan: Plan, manifest: BuildManifest, folder: Path) -> str | None:
    """Why the deployment folder must be written; None when it is this build, whole."""
    if not (folder / MANIFEST_NAME).is_file():
        return "not built yet"
    try:
        there = read_manifest(folder)
    except Exception as error:  # an unreadable manifest is simply written again
        return f"manifest unreadable ({type(error).__name__})"
    if there != manifest:
        changed = [
            name
            for name in BuildManifest.model_fields
            if getattr(there, name) != getattr(manifest, name) and name != "key"
        ]
        return f"changed: {', '.join(changed) or 'model repository'}"
    return _damage(plan, manifest, folder)


def _damage(plan: Plan, manifest: BuildManifest, folder: Path) -> str | None:
    """What is missing from the deployment folder or was changed in it; None when it is whole."""
    expected: dict[str, FileDigest] = dict(manifest.files)
    for network in manifest.networks.values():
        expected |= network.files
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if plan.store.digests.digest_unchecked(path) != digest:
            return f"{name} was changed after it was built"
    for name, text in repository_files(
        _repository_options(plan.deployment, plan.platform, manifest.key)
    ).items():
        path = folder / REPOSITORY / name
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            return f"{REPOSITORY}/{name} differs"
    return None


def _is_placed(plan: Plan, target: Path, digest: FileDigest | None) -> bool:
    return target.is_file() and plan.store.digests.digest_unchecked(target) == digest


def _place(source: Path, target: Path, *, linked: bool) -> None:
    """`target` becomes the file `source`, at once; engines are linked, since they are large and never written
    again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        if not linked:
            raise OSError(errno.EXDEV, "copy")
        os.link(source, new)
    except OSError:
        shutil.copyfile(source, new)
    if target.exists() and target.samefile(
        new
    ):  # a rename over a link of the same file does nothing, and would leave `new`
        new.unlink()
    else:
        new.replace(target)


def _remove_unlisted(folder: Path, manifest: BuildManifest) -> None:
    """Engines, tokenizers and poses of builds before this one, but for what a server holds."""
    wanted = listed_files(manifest) | {
        str(Path(file.path).with_name(RUNTIME_CACHE_NAME)) for file in manifest.networks.values()
    }
    for item in (item for part in PARTS for item in sorted((folder / part).glob("*"))):
        with locked_unless_held(item) as unheld:
            for path in (*sorted(item.rglob("*"), reverse=True), item) if unheld else ():
                if path.is_file() and str(path.relative_to(folder)) not in wanted:
                    path.unlink()
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()


def _messages(plan: Plan) -> tuple[str, ...]:
    found = []
    if plan.base.passed_over:
        found.append(
            f"base falls back to {plan.base.label}; not available: {'; '.join(plan.base.passed_over)}"
        )
    if plan.verify("unet") is None:
        found.append(f"engines are {NOT_VERIFIED} ({plan.platform.target})")
    return tuple(found)
