"""Calls from one Triton model to another (business logic scripting), and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np

from intaglio.contract.models import ModelSpec
from intaglio.engines.interface import Array
from intaglio.errors import TritonCode
from intaglio.telemetry.journal import NOBODY, Journal
from intaglio.triton_models.model import CODED
from intaglio.triton_models.trace_context import call_context

__all__ = ["CalledOutputs", "StageCalls", "StageFailed"]


class StageFailed(Exception):  # noqa: N818  (as the names in intaglio.errors)
    """A stage answered with an error, which is the caller's answer too."""

    def __init__(self, said: str) -> None:
        name, _, message = said.partition(" ")
        # What names no status comes from Triton, which cannot reach the stage.
        self.code: TritonCode = "UNAVAILABLE"
        self.message = said
        if name in get_args(TritonCode):
            self.code = cast(TritonCode, name)
            self.message = message
        super().__init__(self.message)


class CalledOutputs:
    """The output tensors of a call."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._tensors = {tensor.name(): tensor for tensor in tensors}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Any:
        """The tensor `name` as another call takes it, without a copy."""
        return self._tensors[name]

    def array(self, name: str) -> Array:
        """The values of the tensor `name`."""
        array: Array = self._tensors[name].as_numpy()
        return array


class StageCalls:
    """Blocking calls of one version of the stages; any thread may call."""

    def __init__(self, pb: Any, *, version: int) -> None:
        """`pb` is `triton_python_backend_utils`."""
        self._pb = pb
        self._version = version

    def call(
        self,
        stage: ModelSpec,
        tensors: Mapping[str, Any],
        *,
        wanted: Sequence[str] | None = None,
        journal: Journal = NOBODY,
    ) -> CalledOutputs:
        """The outputs of `stage` named in `wanted`, by default all; a response may leave some out.

        `journal` is that of the request for which the stage is called.
        `tensors` are arrays, or tensors of an earlier call.

        Raises:
            StageFailed: it answers with an error.
        """
        names = [port.name for port in stage.outputs] if wanted is None else list(wanted)
        request = self._pb.InferenceRequest(
            model_name=stage.name,
            model_version=self._version,
            inputs=[self._tensor(name, value) for name, value in tensors.items()],
            requested_output_names=names,
            request_id=f"{CODED}{journal.request_id}",
            **call_context(journal.traceparent),
        )
        response = request.exec()
        if response.has_error():
            raise StageFailed(response.error().message())
        return CalledOutputs(response.output_tensors())

    def _tensor(self, name: str, value: Any) -> Any:
        return self._pb.Tensor(name, value) if isinstance(value, np.ndarray) else value
