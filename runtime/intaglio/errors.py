"""What can go wrong, and which status a Triton client sees for it.

    IntaglioError               INTERNAL
    ├── InvalidRequest          INVALID_ARG   the caller can fix it; names the field and what is allowed
    ├── ConfigError             INTERNAL      a deployment YAML or registry says something impossible
    ├── BuildError              INTERNAL      `intaglio build` could not make an artefact
    ├── EngineMismatch          UNAVAILABLE   a built file is missing, damaged or foreign; names the command
    ├── LoraRefused             INTERNAL      a LoRA file is damaged or not for this base; says what it is
    ├── DetectorFailed          INTERNAL      a detector crashed or took too long; the next photograph is read
    ├── Unavailable             UNAVAILABLE   busy or not ready; the same request may work later
    │   ├── QueueFull           UNAVAILABLE
    │   ├── Stopping            UNAVAILABLE   the server stops and has not begun the request
    │   ├── SwapFailed          UNAVAILABLE   the LoRAs cannot be applied; says which are still resident
    │   └── DeviceFailed        UNAVAILABLE   the card computes nothing more until its process has ended
    ├── Cancelled               CANCELLED     the caller went away
    ├── DeadlineExceeded        CANCELLED     Triton has no deadline code; the message says so
    └── MissingExtra            INTERNAL      an optional dependency is not installed; names the extra

A message is one line: what was wrong, then what would be right.
"""

# ruff: noqa: N818  (an InvalidRequest reads better than an InvalidRequestError)

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

__all__ = [
    "BuildError",
    "Cancelled",
    "ConfigError",
    "DeadlineExceeded",
    "DetectorFailed",
    "DeviceFailed",
    "EngineMismatch",
    "IntaglioError",
    "InvalidRequest",
    "LoraRefused",
    "MissingExtra",
    "QueueFull",
    "Stopping",
    "SwapFailed",
    "TritonCode",
    "Unavailable",
    "failed_device",
    "single_line",
    "triton_code_of",
]

TritonCode = Literal["INTERNAL", "INVALID_ARG", "UNAVAILABLE", "CANCELLED"]
"""Names of attributes of `triton_python_backend_utils.TritonError`."""

_LONGEST_MESSAGE = 500


def single_line(text: str, *, limit: int = _LONGEST_MESSAGE) -> str:
    """`text` with every run of whitespace and control characters as one space, cut at `limit` characters."""
    words = "".join(character if character.isprintable() else " " for character in text).split()
    line = " ".join(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


class IntaglioError(Exception):
    """Any failure that intaglio explains; `str()` is one line fit for a client."""

    triton_code: ClassVar[TritonCode] = "INTERNAL"

    def __init__(self, message: str) -> None:
        self.message = single_line(message)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Callable[..., IntaglioError], tuple[object, ...]]:
        """For pickle: an error crosses from one process to another as it is, whatever `__init__` takes."""
        return _restored, (type(self), self.args, vars(self))


def _restored(
    kind: type[IntaglioError], args: tuple[object, ...], values: Mapping[str, object]
) -> IntaglioError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(values)
    return error


class InvalidRequest(IntaglioError):
    """The request's `field` is wrong; `allowed` says what would be right."""

    triton_code: ClassVar[TritonCode] = "INVALID_ARG"

    def __init__(self, field: str, problem: str, *, allowed: str) -> None:
        self.field = field
        self.problem = problem
        self.allowed = allowed
        shown, right = single_line(problem, limit=200), single_line(allowed, limit=250)
        super().__init__(f"{field}: {shown}; allowed: {right}")


class ConfigError(IntaglioError):
    """A deployment YAML, registry or environment says something impossible."""


class BuildError(IntaglioError):
    """An artefact could not be built or did not pass verification."""


class EngineMismatch(IntaglioError):
    """A built file is missing, damaged or of another build; `command` builds it again."""

    triton_code: ClassVar[TritonCode] = "UNAVAILABLE"

    def __init__(self, reason: str, *, command: str) -> None:
        self.reason = reason
        self.command = command
        super().__init__(f"{reason}; rebuild with: {command}")


class Unavailable(IntaglioError):
    """Busy or not ready; the same request may work later."""

    triton_code: ClassVar[TritonCode] = "UNAVAILABLE"


class QueueFull(Unavailable):
    """The server's queue is full; `retry_after` says in how many seconds it may have room, where known."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Stopping(Unavailable):
    """The server stops and finishes only what it has; it has not begun this request."""


class SwapFailed(Unavailable):
    """A LoRA set cannot be applied; the message says which set is resident instead, or that none is."""


class DeviceFailed(Unavailable):
    """The card failed, and every later call of this process would fail too; the process has to end."""


class LoraRefused(IntaglioError):
    """A LoRA file cannot be used here; `reason` says what is wrong with it, or what it is instead."""

    def __init__(self, lora: str, reason: str) -> None:
        self.lora = lora
        self.reason = reason
        super().__init__(f"lora {lora}: {reason}")


class DetectorFailed(IntaglioError):
    """The process of detectors crashed or did not answer in time; the next photograph gets a new one."""


class Cancelled(IntaglioError):
    """The caller went away before the image was ready."""

    triton_code: ClassVar[TritonCode] = "CANCELLED"


class DeadlineExceeded(IntaglioError):
    """The request's deadline passed before the image was ready."""

    triton_code: ClassVar[TritonCode] = "CANCELLED"


class MissingExtra(IntaglioError):
    """`module` is not installed; `extra` of the distribution brings it."""

    def __init__(self, module: str, *, extra: str) -> None:
        self.module = module
        self.extra = extra
        super().__init__(f"{module} is not installed; run: pip install 'intaglio[{extra}]'")


def failed_device(error: BaseException | None) -> DeviceFailed | None:
    """The failure of the card that is `error` or led to it."""
    while error is not None:
        if isinstance(error, DeviceFailed):
            return error
        error = error.__cause__ or error.__context__
    return None


def triton_code_of(error: BaseException) -> TritonCode:
    """The status that a client sees; an error that is not ours is INTERNAL."""
    return error.triton_code if isinstance(error, IntaglioError) else "INTERNAL"
