"""One request as the message that gRPC sends, and the tensors of its responses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import serialize_byte_tensor

from intaglio.contract.models import SHORTEST_SECONDS, STANDALONE, ModelSpec
from intaglio_client.connections.proxy_headers import LORAS_HEADER, REQUEST_ID_HEADER, lora_set_name

__all__ = ["Request", "outputs_of"]

_WIRE_NAMES: Final = {
    "TYPE_STRING": "BYTES",
    "TYPE_FP32": "FP32",
    "TYPE_INT32": "INT32",
    "TYPE_INT64": "INT64",
    "TYPE_BOOL": "BOOL",
    "TYPE_UINT8": "UINT8",
}
_DEADLINE: Final = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of one model."""

    model: ModelSpec
    tensors: Mapping[str, NDArray[Any]]
    """Inputs of the model by name."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The id that the request has in the server's log and traces; the same in every attempt."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request gets the same answer again."""
        return self.model in STANDALONE or "seed" in self.tensors

    @property
    def deadline(self) -> float | None:
        """Seconds that the server may take, where the request says that."""
        return float(self.tensors[_DEADLINE][0]) if _DEADLINE in self.tensors else None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What is said of it outside the message, for proxies."""
        named = ((REQUEST_ID_HEADER, self.id),)
        if self.model in STANDALONE:
            return named
        return (*named, (LORAS_HEADER, lora_set_name(self.tensors)))

    def message(self, *, remaining: float | None = None) -> Any:
        """The `ModelInferRequest`. A deadline in it becomes `remaining` where that is shorter."""
        tensors = dict(self.tensors)
        deadline = self.deadline
        if deadline is not None and remaining is not None and remaining < deadline:
            tensors[_DEADLINE] = np.array([max(remaining, SHORTEST_SECONDS)], np.float32)
        message = service_pb2.ModelInferRequest(model_name=self.model.name, id=self.id)
        for name, array in tensors.items():
            datatype = _WIRE_NAMES[self.model.input(name).datatype]
            message.inputs.add(name=name, datatype=datatype, shape=array.shape)
            message.raw_input_contents.append(_raw(array))
        return message


def _raw(array: NDArray[Any]) -> bytes:
    if array.dtype.kind == "O":
        return bytes(serialize_byte_tensor(array).item())
    return array.tobytes()


def outputs_of(response: Any) -> dict[str, NDArray[Any]]:
    """The tensors of a `ModelInferResponse` by name."""
    read = InferResult(response)
    return {output.name: np.asarray(read.as_numpy(output.name)) for output in response.outputs}
