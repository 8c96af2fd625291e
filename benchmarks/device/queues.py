"""Measure on every card of a host at the same time: a queue of this folder's scripts for each card.

    python3 -m benchmarks.device.queues start 1500          begin in the background, end after 1500 s
    python3 -m benchmarks.device.queues poll --wait 540     say what is done; bring results to $OUT

`queues.toml` lists the steps. A queue runs one step after another. A step that ended with 0 is done, and no
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Queue", "Step", "poll", "read_queues", "run_queue", "start"]

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = Path(__file__).with_name("queues.toml")
FOLDER: Final = Path("/tmp/queues")  # outlives a call; setup.sh keeps its files beside it
_SECONDS: Final = "{seconds}"
_GRACE_SECONDS: Final = 30
_LEFT_OUT: Final = (".git", ".venv", "build", "bundle", "out")
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

    def __post_init__(self) -> None:
        if _SECONDS not in self.command:
            raise ValueError(f"step {self.name}: its command is not told how long it may take: {_SECONDS}")


@dataclass(frozen=True, slots=True)
class Queue:
    """The steps of one card, in their order."""

    card: int
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"card{self.card}"


def read_queues(table: Path) -> list[Queue]:
    """The queues of a TOML file.

    Raises:
        TypeError: a step lacks a key or has an unknown one.
        ValueError: a card has two queues, or two steps of a queue have one name.
    """
    queues = []
    for found in tomllib.loads(table.read_text(encoding="utf-8"))["queue"]:
        steps = tuple(Step(**step | {"command": tuple(step["command"])}) for step in found["step"])
        queues.append(Queue(found["card"], steps))
        if len({step.name for step in steps}) < len(steps):
            raise ValueError(f"{table}: two steps of card {found['card']} have one name")
    if len({queue.card for queue in queues}) < len(queues):
        raise ValueError(f"{table}: a card has two queues")
    return queues


def start(folder: Path, table: Path, seconds: float) -> None:
    """Copy the tree for every queue and begin them all, each in a session of its own.

    Raises:
        BlockingIOError: a queue still runs.
    """
    queues = read_queues(table)
    with ExitStack() as held:
        locks = [held.enter_context(_held(folder / queue.name)) for queue in queues]
        ends = time.time() + seconds
        for tree in sorted({step.tree for queue in queues for step in queue.steps}):
            _copy_tree(folder / "trees" / tree)
        kept = folder / "queues.toml"
        shutil.copy(table, kept)
        for queue, lock in zip(queues, locks, strict=True):
            command = [sys.executable, "-m", "benchmarks.device.queues", "--folder", str(folder)]
            with (folder / queue.name / "queue.log").open("a", encoding="utf-8") as log:
                subprocess.Popen(
                    [*command, "--table", str(kept), "run", str(queue.card), str(ends)],
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
        ignore=lambda place, names: set(_LEFT_OUT).intersection(names) if Path(place) == ROOT else set(),
    )


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """The lock of a queue, which its only runner holds; BlockingIOError where it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "running").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file.fileno()


def run_queue(folder: Path, queue: Queue, ends: float) -> None:
    """Run every step that is not done and for which there is time until `ends`, by `time.time`."""
    own = folder / queue.name
    own.mkdir(parents=True, exist_ok=True)
    for step in queue.steps:
        left = ends - time.time()
        if _outcome(own, step).get("code") == 0:
            continue
        if left < step.least_seconds:
            _keep(own, step, state=f"not begun, {left:.0f} s were left")
            continue
        seconds = int(min(left, step.most_seconds))
        _keep(own, step, state=f"runs, has {seconds} s")
        began = time.time()
        code = _run(folder, queue, step, seconds)
        taken = round(time.time() - began)
        _keep(own, step, state="done" if code == 0 else f"ended with {code}", code=code, seconds=taken)


def _run(folder: Path, queue: Queue, step: Step, seconds: int) -> int:
    """Run it; its exit code. What outstays its time ends with all that it has started."""
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
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                return process.wait(seconds + _GRACE_SECONDS if ending == signal.SIGTERM else _GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, ending)
        return process.wait()


def _keep(own: Path, step: Step, **outcome: Any) -> None:
    """Remember how it stands; a reader sees all of it or what was there before."""
    written = own / f"{step.name}.json.new"
    written.write_text(json.dumps(outcome), encoding="utf-8")
    written.replace(own / f"{step.name}.json")


def _outcome(own: Path, step: Step) -> dict[str, Any]:
    path = own / f"{step.name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def poll(folder: Path, table: Path, out: Path, *, wait: float = 0) -> bool:
    """Say how each step stands and write one archive a queue into `out`; whether all are done.

    Waits up to `wait` seconds for queues that run.
    """
    queues = read_queues(table)
    until = time.time() + wait
    while time.time() < until and any(_runs(folder / queue.name) for queue in queues):
        time.sleep(1)
    every = []
    for queue in queues:
        own = folder / queue.name
        print(f"{queue.name}: {'runs' if _runs(own) else 'does not run'}")
        for step in queue.steps:
            outcome = _outcome(own, step)
            every.append(outcome.get("code") == 0)
            print(f"  {step.name}: {outcome.get('state', 'waits')} {outcome.get('seconds', '')}".rstrip())
            log = own / f"{step.name}.log"
            if log.is_file() and not every[-1]:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
                print(*(f"    {line[:200]}" for line in lines), sep="\n")
        _pack(own, out / f"{queue.name}.tar.gz")
    return all(every)


def _runs(own: Path) -> bool:
    try:
        with _held(own):
            return False
    except BlockingIOError:
        return True


def _pack(own: Path, archive: Path) -> None:
    """What its steps have written, and their logs. A file that is being written now comes whole next time."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(own, arcname=own.name)
    size = archive.stat().st_size
    if size > _SENT_BYTES:
        print(f"  {archive.name} has {size >> 20} MiB, and {_SENT_BYTES >> 20} MiB come back in one file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: `poll` gives 1 until everything is done."""
    parser = argparse.ArgumentParser(prog="benchmarks.device.queues", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where queues keep everything")
    parser.add_argument("--table", type=Path, default=TABLE, help="the queues")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start").add_argument("seconds", type=float)
    verbs.add_parser("poll").add_argument("--wait", type=float, default=0)
    runner = verbs.add_parser("run")
    runner.add_argument("card", type=int)
    runner.add_argument("ends", type=float)
    given = parser.parse_args(arguments)
    if given.verb == "start":
        start(given.folder, given.table, given.seconds)
    elif given.verb == "run":
        (queue,) = (queue for queue in read_queues(given.table) if queue.card == given.card)
        run_queue(given.folder, queue, given.ends)
    else:
        out = Path(os.environ.get("OUT", "/tmp/out"))
        return 0 if poll(given.folder, given.table, out, wait=given.wait) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
