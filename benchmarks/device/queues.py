"""Run this folder's scripts on the cards of a host in queues, several queues at the same time.

    python3 -m benchmarks.device.queues start 1500          begin in the background, end after 1500 s
    python3 -m benchmarks.device.queues poll --wait 540     say what is done; bring results to $OUT

`queues.toml` lists the steps. A queue runs one step after another, and no process of a step's group outlives
it. Triton has a group of its own and is told to stop when its starter ends. A step may also wait for steps of
other queues: builds share a card, and what is measured has it alone. A step that ended with 0 is done, and no
later `start` repeats it. Queues outlive the call that starts them, and so do their copies of the tree.
This needs the standard library only: setup.sh may not have run yet.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

__all__ = ["Queue", "Step", "poll", "read_queues", "run_queue", "start"]

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = Path(__file__).with_name("queues.toml")
FOLDER: Final = Path("/tmp/queues")  # outlives a call; setup.sh keeps its files beside it
_SECONDS: Final = "{seconds}"
_GRACE_SECONDS: Final = 30
_LOOK_SECONDS: Final = 1
_LEFT_OUT: Final = (".git", ".venv", "build", "bundle", "out")
_CACHES: Final = ("__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache")
"""Of tools. They change while a copy is made, and every copy makes its own."""
_RESULTS: Final = (".json", ".md", ".svg", ".png")
_UNFINISHED: Final = (".new", ".tmp")
_SENT_BYTES: Final = 16 << 20
"""What may come back in one file."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command; it runs in the root of a copy of the tree."""

    name: str
    command: tuple[str, ...]
    """`{seconds}` becomes the seconds that it may take."""
    tree: str
    """Name of the copy. Builds of one folder wait for each other, so queues that build have their own."""
    least_seconds: float
    """It does not begin with less time left."""
    most_seconds: float = float("inf")
    after: tuple[str, ...] = ()
    """Steps of other queues that it waits for, however they end."""

    def __post_init__(self) -> None:
        if _SECONDS not in self.command:
            raise ValueError(f"step {self.name}: its command is not told how long it may take: {_SECONDS}")


@dataclass(frozen=True, slots=True)
class Queue:
    """Steps on one card, in their order."""

    name: str
    """Of its folder too."""
    card: int
    steps: tuple[Step, ...]


def read_queues(table: Path) -> list[Queue]:
    """The queues of a TOML file.

    Raises:
        TypeError: a step lacks a key or has an unknown one.
        ValueError: two queues or two steps have one name; a step waits for an unknown one; steps wait for
            each other.
    """
    queues = []
    for found in tomllib.loads(table.read_text(encoding="utf-8"))["queue"]:
        steps = tuple(Step(**{key: _frozen(value) for key, value in step.items()}) for step in found["step"])
        queues.append(Queue(found["name"], found["card"], steps))
    names = [step.name for queue in queues for step in queue.steps]
    for kind, some in (("queues", [queue.name for queue in queues]), ("steps", names)):
        if len(set(some)) < len(some):
            raise ValueError(f"{table}: two {kind} have one name")
    for step in (step for queue in queues for step in queue.steps):
        if unknown := set(step.after) - set(names):
            raise ValueError(
                f"{table}: step {step.name} waits for {', '.join(sorted(unknown))}: no such step"
            )
    _check_that_all_end(queues, table)
    return queues


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_that_all_end(queues: Sequence[Queue], table: Path) -> None:
    """ValueError where steps wait for each other."""
    waiting = {queue.name: list(queue.steps) for queue in queues}
    ended: set[str] = set()
    while any(waiting.values()):
        ready = [steps for steps in waiting.values() if steps and ended.issuperset(steps[0].after)]
        if not ready:
            first = sorted(steps[0].name for steps in waiting.values() if steps)
            raise ValueError(f"{table}: steps wait for each other: {', '.join(first)}")
        ended.update(steps.pop(0).name for steps in ready)


def start(folder: Path, table: Path, seconds: float) -> None:
    """Copy the tree for every queue and begin them all, each in a session of its own.

    Raises:
        BlockingIOError: a queue still runs.
    """
    queues = read_queues(table)
    with ExitStack() as held:
        locks = [held.enter_context(_held(folder / queue.name)) for queue in queues]
        for tree in sorted({step.tree for queue in queues for step in queue.steps}):
            _copy_tree(folder / "trees" / tree)
        for queue in queues:
            for step in queue.steps:
                if _outcome(folder / queue.name, step).get("code") != 0:  # nobody may take it for this run's
                    (folder / queue.name / f"{step.name}.json").unlink(missing_ok=True)
        kept = folder / "queues.toml"
        shutil.copy(table, kept)
        ends = time.time() + seconds  # copies take none of the time to measure
        for queue, lock in zip(queues, locks, strict=True):
            command = [sys.executable, "-m", "benchmarks.device.queues", "--folder", str(folder)]
            with (folder / queue.name / "queue.log").open("a", encoding="utf-8") as log:
                subprocess.Popen(
                    [*command, "--table", str(kept), "run", queue.name, str(ends)],
                    cwd=folder / "trees" / queue.steps[0].tree,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[lock],  # it holds the lock until it ends
                )


def _copy_tree(copy: Path) -> None:
    """The working tree as it is now, beside what an earlier copy has built."""
    copy.mkdir(parents=True, exist_ok=True)
    for old in copy.iterdir():
        if old.is_dir() and old.name not in _LEFT_OUT:
            shutil.rmtree(old)
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=_ignored,
    )


def _ignored(place: str, names: Collection[str]) -> set[str]:
    left_out = (*_CACHES, *_LEFT_OUT) if Path(place) == ROOT else _CACHES
    return set(left_out).intersection(names)


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """The lock of a queue, which its only runner holds; BlockingIOError where it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "running").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file.fileno()


def run_queue(folder: Path, queue: Queue, ends: float, *, others: Sequence[Queue] = ()) -> None:
    """Run every step that is not done and for which there is time until `ends`, by `time.time`.

    `others` are the queues whose steps these wait for.
    """
    own = folder / queue.name
    own.mkdir(parents=True, exist_ok=True)
    for step in queue.steps:
        if _outcome(own, step).get("code") == 0:
            continue
        try:
            _run_when_due(folder, queue, step, ends, others)
        except Exception as error:
            traceback.print_exc()  # into queue.log
            with suppress(OSError):  # a full disk
                _keep(own, step, _outcome(own, step) | {"state": f"failed: {error}"})


def _run_when_due(folder: Path, queue: Queue, step: Step, ends: float, others: Sequence[Queue]) -> None:
    own = folder / queue.name
    _await(folder, step, others, until=ends - step.least_seconds)
    left = ends - time.time()
    if left < step.least_seconds:
        _keep(own, step, {"state": f"not begun, {left:.0f} s were left"})
        return
    seconds = int(min(left, step.most_seconds))
    began = time.time()
    code = _run(folder, queue, step, seconds)
    state = "done" if code == 0 else f"ended with {code}"
    _keep(own, step, {"state": state, "code": code, "seconds": round(time.time() - began)})


def _await(folder: Path, step: Step, others: Sequence[Queue], *, until: float) -> None:
    """Wait for what `step` comes after: each of it has ended, or its queue has."""
    for queue in others:
        for awaited in (one for one in queue.steps if one.name in step.after):
            while time.time() < until and _is_ahead(folder / queue.name, awaited):
                time.sleep(_LOOK_SECONDS)


def _is_ahead(own: Path, step: Step) -> bool:
    """Whether a step waits or runs. Its processes may outlive its queue, and what was to end them."""
    outcome = _outcome(own, step)
    state = outcome.get("state", "")
    if _runs(own) and (not state or state.startswith("runs")):
        return True
    return "group" in outcome and _lives(outcome["group"])


def _run(folder: Path, queue: Queue, step: Step, seconds: int) -> int:
    """Run it; its exit code. Its group ends with it, and both end when its time is over.

    Raises:
        OSError: it cannot be started, or something of it cannot be ended.
    """
    out = folder / queue.name / "out" / step.name
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(queue.card), "OUT": str(out)}
    with (folder / queue.name / f"{step.name}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [part.replace(_SECONDS, str(seconds)) for part in step.command],
            cwd=folder / "trees" / step.tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        state = {"state": f"runs, has {seconds} s", "group": process.pid}
        _keep(folder / queue.name, step, state)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds + _GRACE_SECONDS)
        _end_group(process.pid)
        return process.wait(_GRACE_SECONDS)


def _end_group(group: int) -> None:
    """End what still runs of a group of processes, first by request: the next step measures alone.

    Raises:
        TimeoutError: something of it outlives SIGKILL, as what waits for a card may.
    """
    for ending in (signal.SIGTERM, signal.SIGKILL):
        if not _lives(group):
            return
        with suppress(ProcessLookupError):
            os.killpg(group, ending)
        until = time.monotonic() + _GRACE_SECONDS
        while _lives(group) and time.monotonic() < until:
            time.sleep(0.1)
    if _lives(group):
        raise TimeoutError(f"processes of group {group} outlive SIGKILL")


def _lives(group: int) -> bool:
    """Whether a process of the group runs. `os.killpg(group, 0)` counts ended ones that nobody reaped."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            state, _, of = (process / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            if int(of) == group and state not in b"ZX":
                return True
    return False


def _keep(own: Path, step: Step, outcome: Mapping[str, Any]) -> None:
    """Remember how it stands; a reader sees all of it or what was there before."""
    written = own / f"{step.name}.json.new"
    written.write_text(json.dumps(outcome), encoding="utf-8")
    written.replace(own / f"{step.name}.json")


def _outcome(own: Path, step: Step) -> dict[str, Any]:
    path = own / f"{step.name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def poll(folder: Path, table: Path, out: Path, *, wait: float = 0) -> bool:
    """Say how each step stands and write the files into `out`; whether all are done and were written.

    All results are in one archive and a queue's logs in another, since few files come back. Waits up to
    `wait` seconds for queues that run.
    """
    queues = read_queues(table)
    until = time.time() + wait
    while time.time() < until and any(_runs(folder / queue.name) for queue in queues):
        time.sleep(1)
    well = True
    results: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    for queue in queues:
        own = folder / queue.name
        runs = _runs(own)
        print(f"{queue.name}: {'runs' if runs else 'does not run'}")
        for step in queue.steps:
            well &= _say(own, step, runs=runs)
        found, logs = _files(own, queue)
        results += found
        well &= _archive(logs, folder, out / f"{queue.name}-logs.tar.gz")
    return _archive(results, folder, out / "results.tar.gz") and well


def _say(own: Path, step: Step, *, runs: bool) -> bool:
    """Say how a step stands; whether it is done."""
    outcome = _outcome(own, step)
    done = outcome.get("code") == 0
    state = outcome.get("state", "waits")
    if state.startswith("runs") and not runs:
        state = "ended with its queue"
    print(f"  {step.name}: {state} {outcome.get('seconds', '')}".rstrip())
    log = own / f"{step.name}.log"
    if log.is_file() and not done:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        print(*(f"    {line[:200]}" for line in lines), sep="\n")
    return done


def _runs(own: Path) -> bool:
    try:
        with _held(own):
            return False
    except BlockingIOError:
        return True


def _files(own: Path, queue: Queue) -> tuple[list[Path], list[Path]]:
    """What a queue has written: results, which large logs must not hold back, and everything else."""
    written = list(_written(own / "out"))  # also of what somebody ran beside the steps
    results = [path for path in written if path.suffix in _RESULTS]
    others = [path for path in written if path.suffix not in _RESULTS]
    results += [own / f"{step.name}.json" for step in queue.steps if _outcome(own, step)]
    return results, [*sorted(own.glob("*.log")), *others]


def _written(folder: Path) -> Iterator[Path]:
    """The files below a folder that are whole."""
    for place, _, names in os.walk(folder):  # passes over folders that are gone meanwhile
        for path in (Path(place, name) for name in sorted(names)):
            if path.suffix not in _UNFINISHED and path.is_file() and not path.is_symlink():
                yield path


def _archive(files: Sequence[Path], folder: Path, archive: Path) -> bool:
    """Pack files of `folder`; whether they can come back. What is being written comes next time."""
    try:
        with tarfile.open(archive, "w:gz") as packed:
            for path in files:
                try:
                    found = path.stat()
                    content = path.read_bytes()  # first: tarfile cannot take back a file that turns shorter
                except OSError as error:
                    print(f"  left out of {archive.name}: {error}")
                    continue
                entry = tarfile.TarInfo(str(path.relative_to(folder)))
                entry.size, entry.mtime = len(content), int(found.st_mtime)
                packed.addfile(entry, BytesIO(content))
    except OSError as error:  # the other archives still come
        print(f"  {archive.name} was not written: {error}")
        return False
    size = archive.stat().st_size
    if size > _SENT_BYTES:
        print(f"  {archive.name} has {size >> 20} MiB, and {_SENT_BYTES >> 20} MiB come back in one file")
    return size <= _SENT_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: `poll` gives 1 until everything is done."""
    parser = argparse.ArgumentParser(prog="benchmarks.device.queues", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where queues keep everything")
    parser.add_argument("--table", type=Path, default=TABLE, help="the queues")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start").add_argument("seconds", type=float)
    verbs.add_parser("poll").add_argument("--wait", type=float, default=0)
    runner = verbs.add_parser("run")
    runner.add_argument("queue")
    runner.add_argument("ends", type=float)
    given = parser.parse_args(arguments)
    if given.verb == "start":
        start(given.folder, given.table, given.seconds)
    elif given.verb == "run":
        queues = read_queues(given.table)
        (queue,) = (queue for queue in queues if queue.name == given.queue)
        run_queue(given.folder, queue, given.ends, others=queues)
    else:
        out = Path(os.environ.get("OUT", "/tmp/out"))
        return 0 if poll(given.folder, given.table, out, wait=given.wait) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
