"""Processes that make the results of stages, several at the same time.

TensorRT compiles on one core and holds a lock meanwhile, so threads do not help.
"""

# ruff: noqa: PLC0415  (torch is imported in the processes only)

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import psutil

from intaglio.contract.config import Deployment
from intaglio.errors import BuildError, IntaglioError
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import Notes, Stage, StageKind, StageStore

if TYPE_CHECKING:
    from intaglio_export.plan.make import NetworkLoader

__all__ = ["Workers", "available_memory", "worker_count"]

_MOST: Final = 6
"""Each process takes up to 1 GiB of the card while it verifies. More would not help: the longest network
decides.
"""
_PROCESS_BYTES: Final = 3 * 2**30
"""Host memory of a process with PyTorch, TensorRT and a CUDA context."""
_COPIES_OF_WEIGHTS: Final = 5
"""Host memory of an export and a compilation, in sizes of the weights: SDXL's UNet of 5 GB took 22 GiB."""
_LARGEST_TOGETHER: Final = 2**30
"""Bytes of weights of the largest network up to which networks share a card while they are verified."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_loader: NetworkLoader | None = None
_failure: str | None = None
"""Why this process could not begin."""


def worker_count(plan: Plan) -> int:
    """How many stages the machine can make at the same time: by its cores, its free memory and the weights.

    1 where weights are drawn from a seed, which happens at full size, and where a network is so large that
    two may not fit on the card together: each process puts its network there to verify it.
    """
    if any(weights.seeded is not None for weights in plan.components.values()):
        return 1
    sizes = [sum(file.stat().st_size for file in weights.files) for weights in plan.components.values()]
    if max(sizes) > _LARGEST_TOGETHER:
        return 1
    need = _PROCESS_BYTES + _COPIES_OF_WEIGHTS * max(sizes)
    fitting = available_memory() // need
    return max(1, min(_MOST, len(os.sched_getaffinity(0)), fitting))


def available_memory(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of host memory that this process may still take: what is free, or what the limits of its control
    groups leave (a container's limit). `own` lists its groups, which are folders below `cgroups`.
    """
    left = [psutil.virtual_memory().available]
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            left += _left_in_groups(cgroups, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += _left_in_groups(cgroups / "memory", path, names)
    return max(min(left), 0)


def _left_in_groups(root: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """What each group from `path` up to `root` leaves. `names` are the files of the limit and of the use, and
    the field of memory.stat for pages of files that the system drops when memory is short.
    """
    limit, use, cached = names
    group = root / path.strip("/")
    found = []
    # Inside a container `path` may be that of the host, which does not exist here: `root` is the group then.
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        try:
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            taken = int((folder / use).read_text()) - int(statistics.get(cached, 0))
            found.append(int((folder / limit).read_text()) - taken)
        except (OSError, ValueError):  # no such group, or `max`: no limit
            continue
    return found


class Workers:
    """A pool of processes. Each has its own loader of `plan`'s networks."""

    def __init__(self, plan: Plan, count: int) -> None:
        plan.store.digests.save()  # so that no process hashes the weights again
        # Not forked: importing diffusers asks CUDA for cards, and CUDA fails in a fork of such a process.
        context = multiprocessing.get_context("spawn")
        start = (plan.deployment, plan.platform, plan.store.folder)
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def make(self, stage: Stage, work: Path) -> Notes:
        """Fill the folder `work` with the result of `stage`.

        Raises:
            BuildError: the stage failed, its process could not begin, or it was killed.
        """
        try:
            return self._pool.submit(_make, stage.kind, stage.network, work).result()
        except BrokenProcessPool as error:
            raise BuildError(
                f"{stage.name}: a process that made stages ended; does the machine have enough memory?"
            ) from error


def _start(deployment: Deployment, platform: Platform, store: Path) -> None:
    """Begin a process."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    global _loader, _failure  # noqa: PLW0603  (what a process of the pool knows must be global)
    try:
        from intaglio_export.plan.make import NetworkLoader
        from intaglio_export.plan.quiet import quiet_libraries

        quiet_libraries()
        _loader = NetworkLoader(Plan(deployment, platform, StageStore(store)))
    except Exception as error:  # raised here, the pool would only say that a process ended
        _failure = f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """End this process when the build's own process ends, however that ends: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _make(kind: StageKind, network: str, work: Path) -> Notes:
    if _loader is None:
        raise BuildError(f"a process that makes stages could not begin: {_failure}")
    from intaglio_export.plan.make import MAKERS

    try:
        return MAKERS[kind](_loader, network, work)
    except IntaglioError as error:
        raise _portable(error) from None
    finally:
        _loader.release_card()  # a process that waits holds nothing


def _portable(error: IntaglioError) -> IntaglioError:
    """`error`, or a BuildError of its text where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return BuildError(str(error))
    return error
