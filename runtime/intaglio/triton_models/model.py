"""What every Python model has: a build that is opened, and errors that become statuses."""

from __future__ import annotations

import contextlib
import json
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import ModelSpec
from intaglio.engines.interface import Array
from intaglio.errors import IntaglioError, TritonCode, single_line, triton_code_of
from intaglio.triton_models.served_build import read_served_build

__all__ = ["CODED", "TritonModel", "queue_size", "tensors_of"]

CODED: Final = "coded:"
"""A request whose id begins with this gets errors that begin with the name of their status.

WAR: Triton 2.51 makes every status INTERNAL on its way from a model to the model that calls it.
"""
_LONGEST_ID: Final = 128
"""Characters of a request's id in the log."""


class TritonModel(ABC):
    """What Triton calls first and last: `initialize` and `finalize`."""

    spec: ClassVar[ModelSpec]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the build. A failure is one line in Triton's log, and the model does not become ready."""
        self._pb: Any = import_module("triton_python_backend_utils")
        self._opened = contextlib.ExitStack()
        try:
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
        shown = single_line(request_id, limit=_LONGEST_ID)  # it may be anything
        named = f"request {shown}: " if shown else ""
        self._pb.Logger.log_error(f"{self.spec.name}: {named}{traceback.format_exc()}")

    def finalize(self) -> None:
        """Close what `open_build` opened."""
        self._opened.close()


def queue_size(args: Mapping[str, str]) -> int:
    """Most requests that may wait, as config.pbtxt says; 0 is any number.

    `args` are those of Triton's `initialize`.
    """
    policy = json.loads(args["model_config"]).get("dynamic_batching", {}).get("default_queue_policy", {})
    return int(policy.get("max_queue_size", 0))


def tensors_of(request: Any) -> dict[str, Array]:
    """The input tensors of a request."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
