"""Triton's Python backend <-> one stage: tensors to arrays, one bad request alone.

A `model.py` is one import:  `from intaglio.triton_models.stages import PreprocessModel as TritonPythonModel`
"""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import POSTPROCESS, PREPROCESS
from intaglio.engines.interface import Array
from intaglio.errors import Cancelled
from intaglio.triton_models.model import TritonModel, tensors_of

__all__ = ["PostprocessModel", "PreprocessModel", "Stage", "StageModel"]

Stage = Callable[[Mapping[str, Array], Sequence[str]], Mapping[str, Array]]
"""(input tensors, names of the outputs asked for) -> outputs."""


class StageModel(TritonModel):
    """A model that answers each request before the next."""

    def open_build(self, manifest: BuildManifest, folder: Path) -> None:
        self._stage = self.open_stage(manifest, folder)

    @abstractmethod
    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        """The function that answers one request. What it needs to close is entered into `_opened`."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, in order; a request that fails fails alone."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        journal = self._journal(request)
        journal.tell("received")
        try:
            if request.is_cancelled():
                raise Cancelled("cancelled by the caller")
            response = self._answer(request)
        except Exception as error:
            journal.ended(error)
            return self._refused(error, request.request_id())
        journal.ended()
        return response

    def _answer(self, request: Any) -> Any:
        asked = set(request.requested_output_names())
        wanted = [port.name for port in self.spec.outputs if port.name in asked]
        outputs = self._stage(tensors_of(request), wanted)
        return self._response({name: outputs[name] for name in wanted})


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
