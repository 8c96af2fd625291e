"""Processes that make stages: how many, and what they give back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import BuildError, EngineMismatch
from intaglio_export.engines.platform import Platform
from intaglio_export.plan import workers
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import Stage, StageStore
from intaglio_export.plan.workers import Workers, available_memory, worker_count

from ...checkpoint import Checkpoint
from ..conftest import write_config

GIB = 2**30
TENSORRT = Platform("tensorrt-rtx", "sm89", "1", on_gpu=False)


def plan_of(checkpoint: Checkpoint, folder: Path, **changes: Any) -> Plan:
    config = write_config(folder / "a.yaml", checkpoint, fuse={}, **changes)
    return Plan(load_deployment(config), TENSORRT, StageStore(folder / "store"))


@pytest.mark.parametrize(("cores", "gib", "count"), [(16, 200, 6), (2, 200, 2), (16, 8, 2), (16, 1, 1)])
def test_as_many_as_cores_and_memory_hold(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, gib: int, count: int
) -> None:
    monkeypatch.setattr(workers, "available_memory", lambda: gib * GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert worker_count(plan_of(checkpoint, tmp_path)) == count


def test_weights_from_a_seed_are_made_one_by_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    seeded = {"architecture": "sdxl-reduced", "seed": 0}
    assert worker_count(plan_of(checkpoint, tmp_path, base=seeded, controlnets={})) == 1


def groups(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


LIMITED = {
    "memory__max": str(8 * GIB),
    "memory__current": str(7 * GIB),
    "memory__stat": f"anon 5\ninactive_file {5 * GIB}\n",
}


def test_the_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=200 * GIB)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: free)
    own = tmp_path / "cgroup"
    own.write_text("0::/user/session\n")
    root = groups(tmp_path / "fs")
    assert available_memory(root, own) == 200 * GIB
    unlimited = LIMITED | {"memory__max": "max\n"}
    groups(root / "user/session", **unlimited)
    assert available_memory(root, own) == 200 * GIB
    groups(root / "user", **LIMITED)
    assert available_memory(root, own) == 6 * GIB, "a group above has the limit; its cached files can go"
    groups(root, **LIMITED | {"memory__max": str(3 * GIB)})
    assert available_memory(root, own) == GIB
    assert available_memory(root, tmp_path / "nowhere") == 200 * GIB
    own.write_text("0::/of/the/host\n")
    assert available_memory(root, own) == GIB, "inside a container the root is its group"


def test_the_limits_of_version_1_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=200 * GIB)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: free)
    own = tmp_path / "cgroup"
    own.write_text("5:cpu:/box\n4:memory:/box\n")
    files = {
        "memory__limit_in_bytes": str(4 * GIB),
        "memory__usage_in_bytes": str(5 * GIB),
        "memory__stat": f"total_inactive_file {2 * GIB}\n",
    }
    groups(tmp_path / "fs/memory/box", **files)
    assert available_memory(tmp_path / "fs", own) == GIB


def test_a_process_that_cannot_begin_says_why(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(checkpoint, tmp_path)
    plan.store.folder.mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/diffusers.py").write_text("raise ImportError('damaged installation')")
    monkeypatch.syspath_prepend(tmp_path / "damaged")  # of the process too
    reason = "a process that makes stages could not begin: ImportError: damaged installation"
    with Workers(plan, 1) as pool, pytest.raises(BuildError, match=reason):
        pool.make(Stage("onnx", "text_encoder", {}, {}), tmp_path)


@pytest.mark.slow
def test_a_process_makes_a_stage_and_says_what_failed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    plan = plan_of(checkpoint, tmp_path)
    plan.store.folder.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    with Workers(plan, 1) as pool:
        pool.make(plan.onnx("text_encoder"), work)
        assert (work / "model.onnx").stat().st_size > 1000
        with pytest.raises((BuildError, OSError)):
            pool.make(Stage("engine", "unet", {}, {}), work)  # its graph is not there


def test_an_error_that_cannot_be_sent_becomes_its_text() -> None:
    sent = workers._portable(EngineMismatch("wrong card", command="intaglio build x.yaml"))
    assert "wrong card" in str(sent)
    assert isinstance(workers._portable(BuildError("disagrees")), BuildError)


def test_networks_too_large_for_a_card_together_are_made_one_by_one(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "available_memory", lambda: 2**40)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(workers, "_LARGEST_TOGETHER", 1000)
    assert worker_count(plan_of(checkpoint, tmp_path)) == 1


ORPHANS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from intaglio_export.plan import workers

def begin():
    import threading
    threading.Thread(target=workers._end_with_parent, daemon=True).start()

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), initializer=begin)
    pids = [pool.submit(os.getpid).result() for _ in range(2)]
    print(*pids, flush=True)
    time.sleep(60)
"""


def test_a_killed_build_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    made = [psutil.Process(int(pid)) for pid in set(parent.stdout.readline().split())]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(made, timeout=20)
    assert not alive
