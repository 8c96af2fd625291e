"""Triton's Python backend <-> the stages: tensors to arrays, errors to statuses, one bad request alone.

A `model.py` is one import:  `from intaglio.triton_models.stages import DiffuseModel as TritonPythonModel`
The build a model serves is, in this order: the environment's INTAGLIO_BUILD, the model configuration's
parameter `build` (relative to the model's own folder). A parameter `build_key` must equal the build's key.
Where the version folder itself holds a manifest, that one is served: `intaglio serve` loads a new build
beside the one before.
"""

# ruff: noqa: PLC0415  (a stage process imports its own stage only)

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

from intaglio.builds.manifest import MANIFEST_NAME, BuildManifest, read_manifest
from intaglio.contract.models import DIFFUSE, POSTPROCESS, PREPROCESS, ModelSpec
from intaglio.engines.interface import Array
from intaglio.errors import Cancelled, ConfigError, EngineMismatch, IntaglioError, QueueFull, triton_code_of
from intaglio.loras.sets import set_digest, set_from_json
from intaglio.loras.switch import LoraSwitch
from intaglio.triton_models.lora_metrics import LoraMetrics
from intaglio.triton_models.turnstile import Turnstile

__all__ = [
    "BUILD_KEY_PARAMETER",
    "BUILD_PARAMETER",
    "BUILD_VARIABLE",
    "DiffuseModel",
    "PostprocessModel",
    "PreprocessModel",
    "StageModel",
]

BUILD_VARIABLE: Final = "INTAGLIO_BUILD"
BUILD_PARAMETER: Final = "build"
BUILD_KEY_PARAMETER: Final = "build_key"

Stage = Callable[[Mapping[str, Array], Sequence[str]], Mapping[str, Array]]
"""(input tensors, names of the outputs asked for) -> outputs."""


class StageModel(ABC):
    """What Triton calls: `initialize`, `execute`, `finalize`."""

    spec: ClassVar[ModelSpec]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the stage; a failure is one line in Triton's log and the model stays unready."""
        self._pb: Any = import_module("triton_python_backend_utils")
        self._opened = contextlib.ExitStack()
        try:
            manifest, folder = _open_build(args)
            self._stage = self.open_stage(manifest, folder)
        except IntaglioError as error:
            self._opened.close()
            raise self._pb.TritonModelException(f"{self.spec.name}: {error}") from error

    @abstractmethod
    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        """The function that answers one request; what it takes is entered into `_opened`."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, in order; a request that fails fails alone."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        pb = self._pb
        try:
            if request.is_cancelled():
                raise Cancelled("cancelled by the caller")
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            wanted = [
                port.name for port in self.spec.outputs if port.name in set(request.requested_output_names())
            ]
            outputs = self._stage(tensors, wanted)
            return pb.InferenceResponse(output_tensors=[pb.Tensor(name, outputs[name]) for name in wanted])
        except IntaglioError as error:
            if triton_code_of(error) == "INTERNAL":
                pb.Logger.log_error(f"{self.spec.name}: {traceback.format_exc()}")
            return self._failure(str(error), error)
        except Exception as error:
            pb.Logger.log_error(f"{self.spec.name}: {traceback.format_exc()}")
            return self._failure(
                f"{self.spec.name}: internal error ({type(error).__name__}); the server's log has the traceback",
                error,
            )

    def _failure(self, message: str, error: BaseException) -> Any:
        pb = self._pb
        return pb.InferenceResponse(
            output_tensors=[], error=pb.TritonError(message, getattr(pb.TritonError, triton_code_of(error)))
        )

    def finalize(self) -> None:
        """Give back what `open_stage` took."""
        self._opened.close()


class PreprocessModel(StageModel):
    """`preprocess`."""

    spec = PREPROCESS

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.preprocess.stage import Preprocess

        stage = self._opened.enter_context(Preprocess(manifest, folder))
        return lambda tensors, wanted: stage(tensors)


class DiffuseModel(StageModel):
    """`diffuse`: engines are open from `initialize` to `finalize`.

    Where requests choose their LoRAs, `execute` only queues them and one thread answers, so that those who
    want the same set can go together. (Triton hands a model without batching one request at a time, and waits
    for no answer before the next.)
    """

    spec = DIFFUSE

    def initialize(self, args: Mapping[str, str]) -> None:
        super().initialize(args)
        self._thread: threading.Thread | None = None
        self._folder, self._version = Path(args["model_repository"]), args.get("model_version", "1")
        if self._diffuse.loras is not None:
            policy = (
                json.loads(args["model_config"]).get("dynamic_batching", {}).get("default_queue_policy", {})
            )
            self._turnstile: Turnstile[tuple[Any, Any]] = Turnstile(
                overtakes=self._overtakes, capacity=int(policy.get("max_queue_size", 0))
            )
            arguments = (self._diffuse.loras, LoraMetrics(self._pb) if self._is_alone() else None)
            self._thread = threading.Thread(target=self._serve, args=arguments, name="diffuse", daemon=True)
            self._thread.start()

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.diffuse.stage import Diffuse

        self._overtakes = manifest.execution.lora_overtakes
        self._diffuse = self._opened.enter_context(Diffuse(manifest, folder))
        self._diffuse.warm_up()
        return lambda tensors, wanted: self._diffuse(tensors, wanted=wanted)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        if self._thread is None:
            return super().execute(requests)
        for request in requests:
            sender = request.get_response_sender()
            if not self._turnstile.put((request, sender), _wanted_set(request)):
                full = QueueFull("Exceeds maximum queue size")
                self._send(sender, self._failure(str(full), full))
        return [None] * len(requests)

    def _is_alone(self) -> bool:
        """Whether no other version is loaded, or about to be.

        Metrics of one name are one thing in Triton, which the version that goes first destroys: the others'
        would write into freed memory. So a version has none before it is alone; what it counted until then is
        in them at once.
        """
        return not any(path.name.isdigit() and path.name != self._version for path in self._folder.glob("*"))

    def _serve(self, loras: LoraSwitch, metrics: LoraMetrics | None) -> None:
        """The one thread that uses the engines; nothing may end it."""
        while (taken := self._turnstile.take(loras.digest)) is not None:
            waited = time.monotonic() - taken.since
            request, sender = taken.job
            response = self._respond(request)
            try:
                if metrics is None and self._is_alone():
                    metrics = LoraMetrics(self._pb)
                if metrics is not None:  # first, so that who has the answer reads figures that know of it
                    metrics.report(loras, waited=waited)
            except Exception:  # the backend's own error class
                self._pb.Logger.log_error(f"diffuse: {traceback.format_exc()}")
            self._send(sender, response)

    def _send(self, sender: Any, response: Any) -> None:
        try:
            sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # the backend's own error class; who asked has gone, the next request has not
            self._pb.Logger.log_error(f"diffuse: {traceback.format_exc()}")

    def finalize(self) -> None:
        if self._thread is not None:
            self._turnstile.close()
            self._thread.join()
        super().finalize()


def _wanted_set(request: Any) -> str:
    """Digest of the LoRAs that a request wants; "" where its tensor makes no sense, which the stage then
    says.
    """
    for tensor in request.inputs():
        if tensor.name() == "loras":
            try:
                return set_digest(set_from_json(bytes(tensor.as_numpy()[0])))
            except (ValueError, IndexError):
                return ""
    return ""


class PostprocessModel(StageModel):
    """`postprocess`."""

    spec = POSTPROCESS

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.postprocess import postprocess

        return lambda tensors, wanted: postprocess(tensors)


def _open_build(args: Mapping[str, str]) -> tuple[BuildManifest, Path]:
    """The manifest and folder of the build this model serves.

    Raises:
        ConfigError: nothing says which build.
        EngineMismatch: no build there, or another one than the repository was written for.
    """
    parameters = {
        name: value.get("string_value", "")
        for name, value in json.loads(args["model_config"]).get("parameters", {}).items()
    }
    named = os.environ.get(BUILD_VARIABLE) or parameters.get(BUILD_PARAMETER)
    if not named:
        raise ConfigError(
            f"which build? set {BUILD_VARIABLE}, or {BUILD_PARAMETER!r} in config.pbtxt, to a folder that `intaglio build` made"
        )
    folder = (Path(args["model_repository"]) / named).resolve()
    version = Path(args["model_repository"]) / args.get("model_version", "1")
    manifest = read_manifest(version if (version / MANIFEST_NAME).is_file() else folder)
    key = parameters.get(BUILD_KEY_PARAMETER)
    if key and key != manifest.key:
        raise EngineMismatch(
            f"the model repository was written for build {key[:12]}, {folder} holds {manifest.key[:12]}",
            command=manifest.rebuild,
        )
    return manifest, folder
