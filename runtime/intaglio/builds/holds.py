"""Holds on the folders of a build that somebody serves: engines, tokenizers, poses,
detectors and what reads faces.

Each folder is named after its content, and a file in it is never replaced by other content. A reader holds a
shared lock on every folder that its manifest names; `intaglio build` removes the folders of earlier builds
that nobody holds. Readers may add `runtime.cache` to an engine's folder. The lock is the kernel's: a process
that was killed holds nothing, and a build that is mounted read-only can be held too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import BuildManifest

__all__ = ["PARTS", "BuildHold", "locked_unless_held"]

PARTS: Final = ("engines", "tokenizers", "poses", "detectors", "faces")


class BuildHold:
    """Holds the folders of one build from `__init__` to `release`.

    A missing folder is not held; a check of the files finds that out.
    """

    def __init__(self, folder: Path, manifest: BuildManifest) -> None:
        self._held = contextlib.ExitStack()
        for part in sorted({Path(*Path(name).parts[:2]) for name in manifest.listed}):
            # Some network file systems cannot lock a folder: there nobody knows what is held.
            with contextlib.suppress(OSError):
                descriptor = os.open(folder / part, os.O_RDONLY | os.O_DIRECTORY)
                self._held.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let the next build remove the folders."""
        self._held.close()


@contextlib.contextmanager
def locked_unless_held(folder: Path) -> Iterator[bool]:
    """Whether nobody serves from `folder`.

    A server that starts to hold it meanwhile waits until the block ends.
    """
    with contextlib.ExitStack() as stack:
        unheld = True
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            unheld = False
        except OSError:  # not a folder, or on a file system without locks
            pass
        yield unheld
