"""The folders of a build that a reader keeps while it serves: engines, tokenizers and poses, each under a
name of its content.

A reader holds a shared lock on every folder that its manifest names; `intaglio build` removes those of
earlier builds that nobody holds. What is listed in a folder is never replaced by other content: that has
another name. Readers may add `runtime.cache` to an engine's folder. The lock is the kernel's: who is killed
holds nothing, and a build that is mounted read-only can be held too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import BuildManifest

__all__ = ["PARTS", "BuildHold", "listed_files", "locked_unless_held"]

PARTS: Final = ("engines", "tokenizers", "poses")


def listed_files(manifest: BuildManifest) -> set[str]:
    """Every file that the manifest names."""
    return {name for network in manifest.networks.values() for name in network.files} | set(manifest.files)


class BuildHold:
    """The folders of one build, kept from `__init__` to `release`; a folder that is missing is not held,
    which a check then finds.
    """

    def __init__(self, folder: Path, manifest: BuildManifest) -> None:
        self._held = contextlib.ExitStack()
        for part in sorted({Path(*Path(name).parts[:2]) for name in listed_files(manifest)}):
            with contextlib.suppress(
                OSError
            ):  # some network file systems lock no folders: what is held there is not known
                descriptor = os.open(folder / part, os.O_RDONLY | os.O_DIRECTORY)
                self._held.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """The next build may remove them."""
        self._held.close()


@contextlib.contextmanager
def locked_unless_held(folder: Path) -> Iterator[bool]:
    """Whether nobody serves from `folder`; who begins to meanwhile waits until it is decided what remains of
    it.
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
