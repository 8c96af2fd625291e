"""What gRPC and Triton say, as intaglio's own errors.

INVALID_ARGUMENT                 InvalidRequest: field, problem and what is allowed, as the server named them
UNAVAILABLE, RESOURCE_EXHAUSTED  Unavailable; QueueFull where the queue was full, SwapFailed where LoRAs
                                 cannot be applied
NOT_FOUND, UNIMPLEMENTED         Unavailable: this is not our server
CANCELLED                        Cancelled; DeadlineExceeded where the server says that the deadline passed
DEADLINE_EXCEEDED                DeadlineExceeded
anything else                    ServerError
"""

from __future__ import annotations

import re
from typing import Final

from tritonclient.utils import InferenceServerException

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    SwapFailed,
    Unavailable,
)

__all__ = ["ServerError", "error_from_exception"]

_PREFIX: Final = re.compile(r"^(in ensemble '[^']*', )?(\[request id: [^\]]*\] )?")
_FIELD: Final = re.compile(r"^(?P<field>[A-Za-z_][\w.\[\]]*): (?P<problem>.*?); allowed: (?P<allowed>.*)$")
_TENSOR: Final = re.compile(r"(?:inference )?input '(?P<field>[^']+)'")
_QUEUE: Final = "exceeds maximum queue size"
_SWAP: Final = re.compile(r"^loras: cannot apply ")
_DEADLINE: Final = "deadline"


class ServerError(IntaglioError):
    """The server failed although the request was in order; the server's log has the traceback."""


def error_from_exception(error: InferenceServerException, *, url: str, request_id: str = "") -> IntaglioError:
    """The error to raise `from` what tritonclient raised while it talked to `url`.

    Where the server failed, the error names `request_id`, which its log has too.
    """
    status = (error.status() or "").removeprefix("StatusCode.")
    message = _PREFIX.sub("", error.message() or "")
    match status:
        case "INVALID_ARGUMENT":
            return _invalid_request(message)
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(
                f"{url}: no answer within the deadline; allow more time, fewer steps or a smaller image"
            )
        case "CANCELLED" if _DEADLINE in message.lower():
            return DeadlineExceeded(message)
        case "CANCELLED":
            return Cancelled(message or "cancelled")
        case "UNAVAILABLE" | "RESOURCE_EXHAUSTED" | "NOT_FOUND" | "UNIMPLEMENTED":
            return _unavailable(message, url=url)
        case _:
            named = f" (request {request_id})" if request_id else ""
            return ServerError(f"{url}: {message or status}{named}")


def _unavailable(message: str, *, url: str) -> Unavailable:
    if _QUEUE in message.lower():
        return QueueFull(f"{url}: the server's queue is full; try again later")
    if _SWAP.search(message):
        return SwapFailed(message)
    return Unavailable(f"{url}: {message}; is the server running (intaglio serve)?")


def _invalid_request(message: str) -> InvalidRequest:
    if named := _FIELD.match(message):
        return InvalidRequest(named["field"], named["problem"], allowed=named["allowed"])
    tensor = _TENSOR.search(message)
    field = tensor["field"] if tensor else "request"
    return InvalidRequest(field, message, allowed="what intaglio.contract.models.SDXL lists")
