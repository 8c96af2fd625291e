"""Build a deployment: do the stages of its plan, then assemble its folder.

    build/.stages/<stage>/<key>/              every stage's result, shared by all deployments and pruned
    build/<name>/manifest.json                what the serving processes read; written last
    build/<name>/presets.json                 what requests may name; replaced atomically
    build/<name>/engines/<network>-<digest>/  hard links into the store (copies on another file system)
    build/<name>/tokenizers/<digest>, poses/<digest>, model_repository
A deployment folder is self-contained: it may be moved or copied to another machine. Folders that a running
server holds stay until no server holds them (`intaglio.builds.holds`); the next build then removes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from intaglio.builds.manifest import BuildManifest
from intaglio.builds.published_presets import publish_presets
from intaglio.contract.config import Deployment, load_deployment
from intaglio.detectors.cache import CACHE_FOLDER
from intaglio.engines.tensorrt.library import turn_tf32_off
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.validation_errors import first_problem
from intaglio.whole_files import remove_leavings
from intaglio_export.deployment.assemble import assemble, assembly_of
from intaglio_export.deployment.manifest import NOT_VERIFIED, build_manifest, request_manifest
from intaglio_export.deployment.presets import checked_presets
from intaglio_export.deployment.support_files import find_support_files
from intaglio_export.engines.platform import Platform, resolve_platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.pruning import KEPT_RESULTS, Pruned, prune
from intaglio_export.plan.run import Reporter, run_stages
from intaglio_export.plan.stages import STORE, StageOutcome, StageStore
from intaglio_export.weights.publication import publication_messages
from intaglio_export.weights.registry import check_registry, publish_registry, registry_of

__all__ = ["BuildOptions", "BuildResult", "build_deployment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the command line adds to the configuration."""

    runtime: str | None = None
    target: str | None = None
    output: Path | None = None
    """Folder of all builds instead of the configuration's `build`."""
    force: bool = False
    """Do every stage again."""
    check: bool = False
    """Read every file again instead of believing its size and time."""
    keep: int | None = KEPT_RESULTS
    """Newest results of every stage that stay in the store though no build names them; None: all."""

    @property
    def arguments(self) -> str:
        """The options as they are typed in the command that builds again."""
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


def build_deployment(config: Path, options: BuildOptions, *, reporter: Reporter) -> BuildResult:
    """Build what the YAML file `config` describes; only what changed is done again.

    Raises:
        ConfigError, BuildError, InvalidRequest, LoraRefused, MissingExtra: what is wrong and what is right.
    """
    asked = load_deployment(config)
    deployment = _overridden(asked, options)
    if deployment.precision == "fp32" and deployment.runtime != "onnxruntime":
        turn_tf32_off()  # before the card is looked for; with `auto`, a card computes in fp16
    platform = resolve_platform(deployment)
    store = StageStore(deployment.build / STORE, reread=options.check or options.force)
    with store.locked(waiting=reporter.waiting):
        plan = Plan(deployment, platform, store)
        # Errors of the configuration and of its sources are raised before any work is done.
        support = find_support_files(deployment, plan.base, store.digests)
        folder = _deployment_folder(deployment, options)
        for place in (store.folder, folder, deployment.build / CACHE_FOLDER):
            remove_leavings(place)  # of writers that were killed
        if deployment.swaps:
            _check_swapped_precision(plan)
            check_registry(deployment, folder)
        presets = checked_presets(deployment, request_manifest(plan))
        outcomes = run_stages(plan, force=options.force, reporter=reporter)
        messages = list(_messages(plan))
        if deployment.swaps:
            publication = publish_registry(deployment, folder)
            messages += publication_messages(registry_of(deployment), publication, config=_shown(config))
        rebuild = f"intaglio build {_shown(config)}{options.arguments}"
        manifest = build_manifest(plan, support, asked=asked, rebuild=rebuild)
        assembly = assembly_of(plan, manifest, support, folder=folder)
        outcome = assemble(assembly, force=options.force)
        publish_presets(folder, presets)
        reporter.finished(outcome, 0.0)
        messages += _pruned(prune(store, folder, keep=options.keep))
    return BuildResult(folder, manifest, platform, (*outcomes, outcome), tuple(messages))


def _check_swapped_precision(plan: Plan) -> None:
    """Refuse weights that would never change: ONNX Runtime computes float16 in float32 on a processor, and a
    session keeps the float32 that it made of each weight when it was opened.
    """
    if plan.platform.runtime == "onnxruntime" and plan.precision == "fp16":
        raise ConfigError(
            "precision fp16: ONNX Runtime cannot change weights in float16, so LoRAs of requests would do "
            "nothing; take precision auto or fp32, or fuse in the place of swap"
        )


def _overridden(deployment: Deployment, options: BuildOptions) -> Deployment:
    """`deployment` with the command line's runtime, target and output, checked again.

    Raises:
        InvalidRequest: they are not allowed, or do not go together.
    """
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
        first = first_problem(error, Deployment)
        allowed = first.allowed or "another --runtime or --target"
        raise InvalidRequest(first.key or "build", first.wrong, allowed=allowed) from error


def _deployment_folder(deployment: Deployment, options: BuildOptions) -> Path:
    """`build/<name>`, or `build/<name>-<target>` where the command line names a card.

    So a build for another machine's card leaves this machine's build alone.
    """
    if options.target in (None, "auto", "cpu"):
        return deployment.build_folder
    return deployment.build / f"{deployment.name}-{options.target}"


def _shown(path: Path) -> str:
    """`path` relative to the working directory where it lies inside."""
    absolute = path.resolve()
    if absolute.is_relative_to(Path.cwd()):
        return str(absolute.relative_to(Path.cwd()))
    return str(path)


def _pruned(pruned: Pruned) -> tuple[str, ...]:
    if pruned.prevented is not None:
        return (pruned.prevented,)
    if not pruned.results:
        return ()
    size = f"{pruned.bytes / 2**20:.1f} MiB"
    results = "1 earlier result" if pruned.results == 1 else f"{pruned.results} earlier results"
    return (f"removed {results} that no build names: {size} are free; --keep-all keeps such results",)


def _messages(plan: Plan) -> tuple[str, ...]:
    found = []
    if plan.base.passed_over:
        skipped = "; ".join(plan.base.passed_over)
        found.append(f"base falls back to {plan.base.label}; not available: {skipped}")
    if plan.verify("unet") is None:
        found.append(f"engines are {NOT_VERIFIED} ({plan.platform.target})")
    return tuple(found)
