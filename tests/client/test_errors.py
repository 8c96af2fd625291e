"""Every status of gRPC becomes one of our errors; what the server named stays named."""

from __future__ import annotations

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from intaglio.errors import Cancelled, DeadlineExceeded, IntaglioError, InvalidRequest, QueueFull, Unavailable
from intaglio_client import ServerError
from intaglio_client.errors import error_from_exception


def mapped(message: str, status: str) -> IntaglioError:
    return error_from_exception(
        InferenceServerException(message, status=f"StatusCode.{status}"), url="host:1"
    )


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "steps: 0 is out of range; allowed: 1 to 150", InvalidRequest),
        ("NOT_FOUND", "Request for unknown model: 'sdxl' is not found", Unavailable),
        ("UNIMPLEMENTED", "unknown service inference.GRPCInferenceService", Unavailable),
        ("UNAVAILABLE", "in ensemble 'sdxl', Exceeds maximum queue size", QueueFull),
        ("UNAVAILABLE", "failed to connect to all addresses", Unavailable),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
        ("CANCELLED", "cancelled by the caller", Cancelled),
        ("CANCELLED", "the deadline passed at step 12", DeadlineExceeded),
        ("INTERNAL", "Stub process 'diffuse_0_0' is not healthy.", ServerError),
    ],
)
def test_statuses(status: str, message: str, kind: type[IntaglioError]) -> None:
    error = mapped(message, status)
    assert type(error) is kind
    assert "\n" not in str(error)


def test_all_statuses_are_mapped() -> None:
    assert all(isinstance(mapped("text", status.name), IntaglioError) for status in grpc.StatusCode)


def test_the_field_comes_through() -> None:
    error = mapped(
        "in ensemble 'sdxl', controls[0].pose: 'x' is unknown; allowed: standing-01, waving-01",
        "INVALID_ARGUMENT",
    )
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.allowed) == ("controls[0].pose", "standing-01, waving-01")
    assert str(error) == "controls[0].pose: 'x' is unknown; allowed: standing-01, waving-01"


def test_tritons_own_refusal_names_the_tensor() -> None:
    problem = "inference input 'steps' data-type is 'FP32', but model 'sdxl' expects 'INT32'"
    message = f"[request id: <id_unknown>] {problem}"
    error = mapped(message, "INVALID_ARGUMENT")
    assert isinstance(error, InvalidRequest)
    assert str(error).startswith("steps: inference input 'steps' data-type")
