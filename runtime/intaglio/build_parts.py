"""The folders of a build that a reader keeps while it serves: engines, tokenizers and poses, each under a name of its content.

A reader holds a shared lock on every folder that its manifest names; `intaglio build` removes those of earlier builds that nobody
holds. The lock is the kernel's: who is killed holds nothing, and a build that is mounted read-only can be held too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from intaglio.manifest import BuildManifest

__all__ = ["PARTS", "BuildHold", "is_held", "listed_files"]

PARTS: Final = ("engines", "tokenizers", "poses")


def listed_files(manifest: BuildManifest) -> set[str]:
    """Every file that the manifest names."""
    return {name for network in manifest.networks.values() for name in network.files} | set(manifest.files)


class BuildHold:
    """The folders of one build, kept from `__init__` to `release`; a folder that is missing is not held, which a check then finds."""

    def __init__(self, folder: Path, manifest: BuildManifest) -> None:
        self._held = contextlib.ExitStack()
        for part in sorted({Path(*Path(name).parts[:2]) for name in listed_files(manifest)}):
            with contextlib.suppress(OSError):  # some network file systems lock no folders: what is held there is not known
                descriptor = os.open(folder / part, os.O_RDONLY | os.O_DIRECTORY)
                self._held.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """The next build may remove them."""
        self._held.close()


def is_held(folder: Path) -> bool:
    """Whether somebody serves from `folder`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
