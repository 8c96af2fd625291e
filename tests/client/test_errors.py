"""Every status of gRPC becomes one of our errors; what the server named stays named."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    Stopping,
    SwapFailed,
    Unavailable,
)
from intaglio.triton_models.stopping import REFUSAL
from intaglio_client import NotServed, ServerError, Unreachable
from intaglio_client.errors import error_from_message, error_from_rpc

ENVOY = "upstream connect error or disconnect/reset before headers."
RESET = "Received RST_STREAM with error code 2"
UNLOADED = "Request for unknown model: 'sdxl_stream' has no available versions"


@dataclass
class Failed(grpc.RpcError):
    """What a call of gRPC raises."""

    status: grpc.StatusCode
    message: str

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self.message


def mapped(message: str, status: str) -> IntaglioError:
    return error_from_rpc(Failed(grpc.StatusCode[status], message), url="host:1")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "steps: 0 is out of range; allowed: 1 to 150", InvalidRequest),
        ("NOT_FOUND", "Request for unknown model: 'sdxl' is not found", NotServed),
        ("UNIMPLEMENTED", "unknown service inference.GRPCInferenceService", NotServed),
        ("UNAVAILABLE", "in ensemble 'sdxl', Exceeds maximum queue size", QueueFull),
        ("UNAVAILABLE", "in ensemble 'sdxl', loras: cannot apply night; none is resident", SwapFailed),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", Unreachable),
        ("UNAVAILABLE", "DNS resolution failed for nowhere:8001", Unreachable),
        ("UNAVAILABLE", "Socket closed", Unavailable),
        ("UNAVAILABLE", "no healthy upstream", Unreachable),
        ("UNAVAILABLE", f"{ENVOY} reset reason: remote connection failure", Unreachable),
        ("UNAVAILABLE", f"{ENVOY} retried and the latest reset reason: connection timeout", Unreachable),
        ("UNAVAILABLE", f"{ENVOY} reset reason: connection termination", Unavailable),
        ("UNKNOWN", f"Stream removed (RST_STREAM ({RESET}))", Unavailable),
        ("INTERNAL", RESET, Unavailable),
        ("UNAUTHENTICATED", "no token", ServerError),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
        ("CANCELLED", "cancelled by the caller", Cancelled),
        ("CANCELLED", "the deadline passed at step 12", DeadlineExceeded),
        ("CANCELLED", "queue_timeout: waited 3 s", DeadlineExceeded),
        ("INTERNAL", "Stub process 'diffuse_0_0' is not healthy.", ServerError),
        ("INTERNAL", "steps: 0 is out of range; allowed: 1 to 150", InvalidRequest),
        ("INTERNAL", "its deadline passed at step 5 of 50", DeadlineExceeded),
        ("INTERNAL", "Exceeds maximum queue size; try again in 3 s", QueueFull),
        ("UNAVAILABLE", REFUSAL, Stopping),
        ("NOT_FOUND", UNLOADED, Stopping),
    ],
)
def test_statuses(status: str, message: str, kind: type[IntaglioError]) -> None:
    error = mapped(message, status)
    assert type(error) is kind
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Exceeds maximum queue size; try again in 12 s", 12.0),
        ("in ensemble 'sdxl', Exceeds maximum queue size; try again in 0.5 s", 0.5),
        ("Exceeds maximum queue size", None),
    ],
)
def test_a_full_queue_says_when_to_come_back(message: str, seconds: float | None) -> None:
    error = mapped(message, "UNAVAILABLE")
    assert isinstance(error, QueueFull)
    assert error.retry_after == seconds
    again = error_from_message(message, url="host:1")
    assert isinstance(again, QueueFull)
    assert again.retry_after == seconds


@pytest.mark.parametrize("text", [REFUSAL, UNLOADED])
def test_a_stream_that_a_server_does_not_begin(text: str) -> None:
    assert type(error_from_message(text, url="host:1")) is Stopping


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
