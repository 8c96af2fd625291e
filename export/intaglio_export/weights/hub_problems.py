"""Why the Hugging Face hub gave nothing, in one line with what would help.

The hub's library raises errors of its own, of requests or httpx, and of the system. They share no base class.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from intaglio.errors import single_line
from intaglio.whole_files import storage_problem

__all__ = ["hub_problem", "is_storage_problem"]

_REASONS: Final[Mapping[str, str]] = {
    "GatedRepoError": "it is gated: ask for access at https://huggingface.co/{name}, and set HF_TOKEN",
    "RepositoryNotFoundError": "the hub has no such repository, or HF_TOKEN is needed to read it",
    "DisabledRepoError": "the hub has disabled the repository",
    "RevisionNotFoundError": "the repository has no revision {revision}",
    "OfflineModeIsEnabled": "it is not in the cache, and HF_HUB_OFFLINE is set: unset it to download",
    "LocalEntryNotFoundError": "it is not in the cache",
    "EntryNotFoundError": "the repository has no such file",
}
"""What is said by class in `huggingface_hub.errors`. A class comes before those that it is derived from."""
_ANSWERS: Final[Mapping[int, str]] = {
    401: "HF_TOKEN is wrong or has expired",
    403: "HF_TOKEN may not read it",
    429: "wait, or set HF_TOKEN, which allows more requests",
}
"""What is said by HTTP status, where the hub's library has no class for it."""
_NETWORK: Final = ("httpx", "requests", "urllib3")
_STORAGE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_FILE: Final = re.compile(r"/resolve/[^/]+/([^?]+)")


def hub_problem(error: Exception, *, name: str, revision: str | None = None) -> str:
    """What went wrong with the repository `name`: the file where one was asked for, the reason, a remedy."""
    error = _first_cause(error)
    file = _file_of(error)
    reason = _reason(error, name, revision or "main")
    return reason if file is None else f"{file}: {reason}"


def is_storage_problem(error: Exception) -> bool:
    """Whether this machine cannot keep the download; another repository would not help."""
    return isinstance(error, OSError) and error.errno in _STORAGE


def _first_cause(error: Exception) -> Exception:
    """Of a file that is not in the cache, why the hub did not give it."""
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415  (slow to import)

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _file_of(error: Exception) -> str | None:
    """The file that was asked for, in the repository; None where the request was for no file."""
    for part in ("response", "request"):
        try:
            url = str(getattr(error, part).url)
        except (AttributeError, RuntimeError):  # httpx raises the second for an error without a request
            continue
        if (found := _FILE.search(url)) is not None:
            return unquote(found[1])
    return None


def _reason(error: Any, name: str, revision: str) -> str:
    from huggingface_hub import constants, errors  # noqa: PLC0415  (slow to import)

    for of_class, reason in _REASONS.items():
        if isinstance(error, getattr(errors, of_class)):
            return reason.format(name=name, revision=revision)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the hub answers {status}: {_ANSWERS.get(status, 'try again later')}"
    if is_storage_problem(error):
        return (
            f"{constants.HF_HUB_CACHE}: {storage_problem(error)}; HF_HOME names another place for downloads"
        )
    kind = type(error)
    if kind.__module__.startswith(_NETWORK) or isinstance(error, ConnectionError):
        return (
            f"{constants.ENDPOINT} cannot be reached ({kind.__name__}): check the network and its proxy, "
            f"or copy {constants.HF_HUB_CACHE} from a machine that has it"
        )
    return f"the hub's library fails ({kind.__name__}: {single_line(str(error), limit=120)})"
