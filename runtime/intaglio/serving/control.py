"""How `intaglio reload` reaches `intaglio serve`: a socket in the server's private folder, which only the
server's user can open. Two files beside it name the build that is served and where.

The server does the work itself, so Triton's secret never leaves it. The answer is JSON, one object a line:
{"say": text} while it works, then {"done": text}, {"later": text} where the same may work later, or
{"error": text}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.errors import IntaglioError, Unavailable
from intaglio.serving.workspace import workspace_folders
from intaglio.whole_files import write_whole

__all__ = ["Control", "ControlledServer", "ReloadRefused", "ask_to_reload", "controlled_servers"]

_SOCKET: Final = "control"
_BUILD: Final = "build"
"""Names the folder of the build that is served."""
_GRPC: Final = "grpc"
"""Names the host and port that gRPC clients reach."""
_RELOAD: Final = b"reload\n"
_HEARD_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)

Report = Callable[[str], None]


class ReloadRefused(IntaglioError):  # noqa: N818  (as the names in intaglio.errors)
    """A reload failed and would fail again; the message says which build is served, or what has to change."""


class Control:
    """Answers one caller at a time, in a thread of its own, from `__init__` to `close`."""

    def __init__(self, folder: Path, build: Path, reload: Callable[[Report], str], *, grpc_url: str) -> None:
        self._reload = reload
        self._closing = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_name(folder) as name:
            self._listening.bind(name)
        self._listening.listen()
        self._folder = folder
        self.move(grpc_url)
        # The last file: a caller that finds it finds a server that listens.
        (folder / _BUILD).write_text(str(build.resolve()), encoding="utf-8")
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def move(self, grpc_url: str) -> None:
        """Say where gRPC clients reach the server from now on."""
        write_whole(self._folder / _GRPC, grpc_url.encode())

    def close(self) -> None:
        """Stop; returns once the last answer is complete."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError as error:  # the caller left already, or there is no free file descriptor
                if self._closing.is_set():
                    return
                _log.warning("no reload can be asked for at the moment: %s", error)
                self._closing.wait(_RETRY_SECONDS)
                continue
            with caller:
                if _asks(caller):
                    self._answer(caller)

    def _answer(self, caller: socket.socket) -> None:
        def send(**line: str) -> None:
            with contextlib.suppress(OSError):  # the caller is gone; the reload goes on
                caller.sendall(json.dumps(line).encode() + b"\n")

        try:
            send(done=self._reload(lambda text: send(say=text)))
        except Unavailable as error:
            send(later=str(error))
        except IntaglioError as error:
            send(error=str(error))
        except Exception as error:
            _log.exception("a reload failed")
            kind = type(error).__name__
            send(error=f"internal error ({kind}); the output of `intaglio serve` has the traceback")


def _asks(caller: socket.socket) -> bool:
    """Whether the caller asks for a reload in time. A caller that only looks for servers sends nothing."""
    caller.settimeout(_HEARD_SECONDS)
    with contextlib.suppress(OSError):
        return caller.recv(len(_RELOAD)) == _RELOAD
    return False


@dataclass(frozen=True, slots=True)
class ControlledServer:
    """A running server of this user."""

    folder: Path
    """Its private folder."""
    grpc_url: str
    """`host:port` for gRPC clients on this machine."""


def controlled_servers(build: Path) -> list[ControlledServer]:
    """This user's running servers of the build in `build`."""
    found = []
    for folder in workspace_folders():
        with contextlib.suppress(OSError):
            private = not stat.S_IMODE(folder.stat().st_mode) & 0o077
            served = (folder / _BUILD).read_text(encoding="utf-8")
            if private and served == str(build.resolve()) and _listens(folder):
                url = (folder / _GRPC).read_text(encoding="utf-8")
                found.append(ControlledServer(folder, url))
    return found


def ask_to_reload(folder: Path, *, report: Report) -> str:
    """Ask the server that owns `folder` to reload; returns what it did.

    Raises:
        ReloadRefused: it failed, why, and what is served; the same would fail again.
        Unavailable: it did not reload, but may do so later.
    """
    try:
        with _connected(folder) as connection:
            connection.settimeout(None)
            connection.sendall(_RELOAD)
            with connection.makefile(encoding="utf-8") as lines:
                for line in lines:
                    answer: dict[str, str] = json.loads(line)
                    if "done" in answer:
                        return answer["done"]
                    if "later" in answer:
                        raise Unavailable(answer["later"])
                    if "error" in answer:
                        raise ReloadRefused(answer["error"])
                    report(answer["say"])
    except OSError as error:
        raise Unavailable(f"the server does not answer: {error}") from error
    except ValueError:
        pass  # it ended within a line
    raise Unavailable("the server ended during the reload; `intaglio serve` says why")


def _listens(folder: Path) -> bool:
    with contextlib.suppress(OSError), _connected(folder):
        return True
    return False


@contextlib.contextmanager
def _connected(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_HEARD_SECONDS)
        with _short_name(folder) as name:
            connection.connect(name)
        yield connection


@contextlib.contextmanager
def _short_name(folder: Path) -> Iterator[str]:
    """A name of the socket with few bytes: 107 are allowed, and the path of a TMPDIR may be longer."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)
