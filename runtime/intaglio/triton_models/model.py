"""What every Python model has: a build that is opened, and errors that become statuses."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import ModelSpec
from intaglio.engines.interface import Array
from intaglio.errors import IntaglioError, TritonCode, triton_code_of
from intaglio.telemetry.journal import Journal, Telemetry
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.served_build import read_served_build
from intaglio.triton_models.trace_context import traceparent_of

__all__ = ["CODED", "TritonModel", "queue_size", "tensors_of"]

CODED: Final = "coded:"
"""A request whose id begins with this gets errors that begin with the name of their status.

WAR: Triton 2.51 makes every status INTERNAL on its way from a model to the model that calls it.
"""


class TritonModel(ABC):
    """What Triton calls first and last: `initialize` and `finalize`."""

    spec: ClassVar[ModelSpec]
    _telemetry: Telemetry
    """Its log and its traces."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the build. A failure is one line in Triton's log, and the model does not become ready."""
        self._pb: Any = import_module("triton_python_backend_utils")
        self._opened = contextlib.ExitStack()
        try:
            instance = args.get("model_instance_name", "")
            settings = TelemetrySettings.of_environment()
            self._telemetry = Telemetry(settings, stage=self.spec.name, instance=instance)
            self._opened.callback(self._telemetry.close)
            manifest, folder = read_served_build(args)
            self.open_build(manifest, folder)
        except Exception as error:
            self._close_after_failure()
            if isinstance(error, IntaglioError):
                raise self._pb.TritonModelException(f"{self.spec.name}: {error}") from error
            raise

    def _close_after_failure(self) -> None:
        """Close what is open. What fails then goes to the log only: the first failure is reported."""
        try:
            self._opened.close()
        except Exception:
            self._log_traceback()

    @abstractmethod
    def open_build(self, manifest: BuildManifest, folder: Path) -> None:
        """Open what requests need. What has to be closed is entered into `_opened`."""

    def _response(self, outputs: Mapping[str, Array]) -> Any:
        found = [self._pb.Tensor(name, value) for name, value in outputs.items()]
        return self._pb.InferenceResponse(output_tensors=found)

    def _refused(self, error: Exception, request_id: str) -> Any:
        """The response to a request that failed; called in the handler of `error`."""
        if triton_code_of(error) == "INTERNAL":
            self._log_traceback(request_id)
        if isinstance(error, IntaglioError):
            return self._failure(str(error), error, request_id)
        kind = type(error).__name__
        message = f"{self.spec.name}: internal error ({kind}); the server's log has the traceback"
        return self._failure(message, error, request_id)

    def _failure(self, message: str, error: BaseException, request_id: str = "") -> Any:
        name = triton_code_of(error)
        if request_id.startswith(CODED):
            message = f"{name} {message}"
        return self._error_response(message, name)

    def _error_response(self, message: str, name: TritonCode) -> Any:
        error = self._pb.TritonError(message, getattr(self._pb.TritonError, name))
        return self._pb.InferenceResponse(output_tensors=[], error=error)

    def _log_traceback(self, request_id: str = "") -> None:
        """Log the traceback of the current error with the id that the caller gave the request, if any."""
        self._telemetry.failure(_own_id(request_id))

    def _journal(self, request: Any) -> Journal:
        """Of a request that has just arrived."""
        above = traceparent_of(request) if self._telemetry.traces else None
        return self._telemetry.journal(_own_id(request.request_id()), above)

    def finalize(self) -> None:
        """Close what `open_build` opened."""
        self._opened.close()


def _own_id(request_id: str) -> str:
    """The id that the caller gave, of that of a request."""
    return request_id.removeprefix(CODED)


def queue_size(args: Mapping[str, str]) -> int:
    """Most requests that may wait, as config.pbtxt says; 0 is any number.

    `args` are those of Triton's `initialize`.
    """
    policy = json.loads(args["model_config"]).get("dynamic_batching", {}).get("default_queue_policy", {})
    return int(policy.get("max_queue_size", 0))


def tensors_of(request: Any) -> dict[str, Array]:
    """The input tensors of a request."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
