"""What gRPC and Triton say, as intaglio's own errors.

INVALID_ARGUMENT                 InvalidRequest: field, problem and what is allowed, as the server named them
UNAVAILABLE, RESOURCE_EXHAUSTED  Unavailable; QueueFull where the queue was full, SwapFailed where LoRAs
                                 cannot be applied, Stopping where the server stops and has not begun the
                                 request, Unreachable where there was no connection
NOT_FOUND, UNIMPLEMENTED         NotServed: this is not our server, or an older one; Stopping where the model
                                 was there and is unloaded
UNAUTHENTICATED                  ServerError, and so does PERMISSION_DENIED
CANCELLED                        Cancelled; DeadlineExceeded where the server says that time ran out
DEADLINE_EXCEEDED                DeadlineExceeded
anything else                    ServerError
"""

from __future__ import annotations

import re
from typing import Final

import grpc

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

__all__ = ["CLOSED", "NotServed", "ServerError", "Unreachable", "error_from_message", "error_from_rpc"]

_PREFIX: Final = re.compile(r"^(in ensemble '[^']*', )?(\[request id: [^\]]*\] )?")
_FIELD: Final = re.compile(r"^(?P<field>[A-Za-z_][\w.\[\]]*): (?P<problem>.*?); allowed: (?P<allowed>.*)$")
_TENSOR: Final = re.compile(r"(?:inference )?input '(?P<field>[^']+)'")
_QUEUE: Final = "exceeds maximum queue size"
_HINT: Final = re.compile(r"try again in (?P<seconds>\d+(?:\.\d+)?) s\b")
_SWAP: Final = re.compile(r"^loras: cannot apply ")
_TIME: Final = re.compile(r"deadline|queue_timeout", re.IGNORECASE)
_PASSED: Final = re.compile(r"^its (deadline|queue_timeout) .*passed|^cancelled")
_NOT_SENT: Final = re.compile(
    r"failed to connect to all addresses|DNS resolution failed"
    r"|^no healthy upstream|reset reason: ((remote |local )?connection failure|connection timeout|overflow)",
    re.IGNORECASE,
)
"""What gRPC, or Envoy in front of the servers, says where a request never had a connection to one. "Socket
closed" and "connection termination" may mean that the server had it.
"""
_BROKEN: Final = re.compile(r"\bRST_STREAM with error code\b")
"""What gRPC says of a stream that a proxy ends because its server is gone. The status is that of an error."""
CLOSED: Final = "the client was closed"
"""Why a call ends that `close` found under way."""
_LOCAL: Final = {
    "Locally cancelled by application!": "cancelled by the caller",
    "Channel closed!": CLOSED,
    "Stream removed (Channel closed!)": CLOSED,
}
"""What gRPC says of calls that ended on this side."""
_STOPS: Final = re.compile(r"\bServer (not ready|is stopping)\b")
"""What Triton says of a stage once it was told to stop."""
_NOT_BEGUN: Final = re.compile(
    r"^the server is stopping and has not begun|^Request for unknown model: \S+ has no available versions"
)
"""What our server says once it was told to stop, and what Triton says of a model that it has unloaded."""
_UNKNOWN_MODEL: Final = re.compile(r"^Request for unknown model: ")


class ServerError(IntaglioError):
    """The server failed although the request was in order; the server's log has the traceback."""


class Unreachable(Unavailable):
    """There was no connection to the server, so the request was not sent."""


class NotServed(Unavailable):
    """The server does not have the model or the protocol: it is another server, or an older one."""


def error_from_rpc(error: grpc.RpcError, *, url: str, request_id: str = "") -> IntaglioError:
    """The error to raise `from` what gRPC raised while it talked to `url`.

    Where the server failed, the error names `request_id`, which its log has too.
    """
    status, message = error.code().name, _PREFIX.sub("", error.details() or "")
    if status == "INTERNAL" or _NOT_BEGUN.search(message):
        # WAR: Triton 2.51 loses the status of an error when one model calls another, as `sdxl_stream` does.
        status = _status_of(message)
    if status in ("INTERNAL", "UNKNOWN") and _BROKEN.search(message):
        status = "UNAVAILABLE"
    return _error_of(status, message, url=url, request_id=request_id)


def error_from_message(message: str, *, url: str, request_id: str = "") -> IntaglioError:
    """The error of a stream's response that has a text and no status."""
    text = _PREFIX.sub("", message)
    return _error_of(_status_of(text), text, url=url, request_id=request_id)


def _status_of(text: str) -> str:
    """The status that our server gives an error with this text."""
    unavailable = (_SWAP, _STOPS, _NOT_BEGUN)
    if _QUEUE in text.lower() or any(known.search(text) for known in unavailable):
        return "UNAVAILABLE"
    if _UNKNOWN_MODEL.search(text):
        return "NOT_FOUND"
    if _FIELD.match(text):
        return "INVALID_ARGUMENT"
    return "CANCELLED" if _PASSED.search(text) else "INTERNAL"


def _error_of(status: str, text: str, *, url: str, request_id: str) -> IntaglioError:
    match status:
        case "INVALID_ARGUMENT":
            return _invalid_request(text)
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(
                f"{url}: no answer within the deadline; allow more time, fewer steps or a smaller picture"
            )
        case "CANCELLED":
            kind = DeadlineExceeded if _TIME.search(text) else Cancelled
            return kind(_LOCAL.get(text, text or "cancelled"))
        case "UNAVAILABLE" | "RESOURCE_EXHAUSTED":
            return _unavailable(text, url=url)
        case "NOT_FOUND" | "UNIMPLEMENTED":
            return NotServed(_with_hint(text, url=url))
        case _:
            named = f" (request {request_id})" if request_id else ""
            return ServerError(f"{url}: {text or status}{named}")


def _unavailable(message: str, *, url: str) -> Unavailable:
    if _QUEUE in message.lower():
        hint = _HINT.search(message)
        if hint is None:
            return QueueFull(f"{url}: the server's queue is full; try again later")
        seconds = hint["seconds"]
        return QueueFull(
            f"{url}: the server's queue is full; try again in {seconds} s", retry_after=float(seconds)
        )
    if _SWAP.search(message):
        return SwapFailed(message)
    if _NOT_BEGUN.search(message):
        return Stopping(f"{url}: {message}")
    if _NOT_SENT.search(message):
        return Unreachable(_with_hint(message, url=url))
    return Unavailable(_with_hint(message, url=url))


def _with_hint(message: str, *, url: str) -> str:
    # What gRPC says of a server that wants TLS, or a certificate that the client does not show.
    wants = ", and does it want TLS (--tls-ca, --tls-cert, --tls-key)?" if "Socket closed" in message else "?"
    return f"{url}: {message}; is the server running (intaglio serve){wants}"


def _invalid_request(message: str) -> InvalidRequest:
    if named := _FIELD.match(message):
        return InvalidRequest(named["field"], named["problem"], allowed=named["allowed"])
    tensor = _TENSOR.search(message)
    field = tensor["field"] if tensor else "request"
    return InvalidRequest(field, message, allowed="what intaglio.contract.models.SDXL lists")
