"""Triton's Python backend <-> one stage: tensors to arrays, errors to statuses, one bad request alone.

A `model.py` is one import:  `from intaglio.triton_models.stages import PreprocessModel as TritonPythonModel`
"""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

import contextlib
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import POSTPROCESS, PREPROCESS, ModelSpec
from intaglio.engines.interface import Array
from intaglio.errors import Cancelled, IntaglioError, single_line, triton_code_of
from intaglio.triton_models.served_build import read_served_build

__all__ = ["PostprocessModel", "PreprocessModel", "Stage", "StageModel", "tensors_of"]

_LONGEST_ID: Final = 128
"""Characters of a request's id in the log."""

Stage = Callable[[Mapping[str, Array], Sequence[str]], Mapping[str, Array]]
"""(input tensors, names of the outputs asked for) -> outputs."""


class StageModel(ABC):
    """What Triton calls: `initialize`, `execute`, `finalize`."""

    spec: ClassVar[ModelSpec]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the stage. A failure is one line in Triton's log, and the model does not become ready."""
        self._pb: Any = import_module("triton_python_backend_utils")
        self._opened = contextlib.ExitStack()
        try:
            manifest, folder = read_served_build(args)
            self._stage = self.open_stage(manifest, folder)
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
    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        """The function that answers one request. What it needs to close is entered into `_opened`."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, in order; a request that fails fails alone."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            if request.is_cancelled():
                raise Cancelled("cancelled by the caller")
            return self._answer(request)
        except Exception as error:
            return self._refused(error, request)

    def _refused(self, error: Exception, request: Any) -> Any:
        """The response to `request`, which failed; called in the handler of `error`."""
        if triton_code_of(error) == "INTERNAL":
            self._log_traceback(request.request_id())
        if isinstance(error, IntaglioError):
            return self._failure(str(error), error)
        kind = type(error).__name__
        message = f"{self.spec.name}: internal error ({kind}); the server's log has the traceback"
        return self._failure(message, error)

    def _answer(self, request: Any) -> Any:
        tensors = tensors_of(request)
        asked = set(request.requested_output_names())
        wanted = [port.name for port in self.spec.outputs if port.name in asked]
        outputs = self._stage(tensors, wanted)
        found = [self._pb.Tensor(name, outputs[name]) for name in wanted]
        return self._pb.InferenceResponse(output_tensors=found)

    def _failure(self, message: str, error: BaseException) -> Any:
        code = getattr(self._pb.TritonError, triton_code_of(error))
        return self._pb.InferenceResponse(output_tensors=[], error=self._pb.TritonError(message, code))

    def _log_traceback(self, request_id: str = "") -> None:
        """Log the traceback of the current error with the id that the caller gave the request, if any."""
        shown = single_line(request_id, limit=_LONGEST_ID)  # it may be anything
        named = f"request {shown}: " if shown else ""
        self._pb.Logger.log_error(f"{self.spec.name}: {named}{traceback.format_exc()}")

    def finalize(self) -> None:
        """Close what `open_stage` opened."""
        self._opened.close()


def tensors_of(request: Any) -> dict[str, Array]:
    """The input tensors of a request."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


class PreprocessModel(StageModel):
    """`preprocess`."""

    spec = PREPROCESS

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.preprocess.stage import Preprocess

        stage = self._opened.enter_context(Preprocess(manifest, folder))
        return lambda tensors, wanted: stage(tensors)


class PostprocessModel(StageModel):
    """`postprocess`."""

    spec = POSTPROCESS

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.imaging.credentials import open_signer
        from intaglio.stages.postprocess import postprocess

        credentials = manifest.provenance.c2pa
        sign = None if credentials is None else open_signer(credentials)
        return lambda tensors, wanted: postprocess(tensors, manifest, sign=sign)
