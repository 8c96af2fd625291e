"""A picture that `diffuse` draws: what was asked of it, how far it is, and why it ends early."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from intaglio.contract.models import CONDITIONING, DIFFUSE, Priority
from intaglio.contract.ports import Tensors, read_tensors, scalar
from intaglio.errors import Cancelled, DeadlineExceeded, QueueFull
from intaglio.loras.sets import set_text
from intaglio.request.texts import read_choice, read_text
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.telemetry.journal import NOBODY, Journal
from intaglio.triton_models.replies import Reply
from intaglio.triton_models.turnstile import Entry

if TYPE_CHECKING:
    from intaglio.stages.diffuse.incoming import Wanted

__all__ = ["Job", "JobRequest", "Pace", "job_entry", "read_job_request"]

_LONGEST_JOB_ID: Final = 64
"""Bytes."""
_LEVELS: Final = get_args(Priority)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a request of `diffuse` says beside the tensors of its picture."""

    job: str | None
    """Id of the picture that its caller watches; None where the answer is the picture."""
    brings_picture: bool
    """Whether it has the tensors of a picture; otherwise it asks for the events of `job`."""
    stop: bool
    slice_steps: int | None
    deadline: float | None
    """Seconds from now."""
    level: int
    queue_timeout: float | None
    """Seconds from now."""


def read_job_request(tensors: Tensors) -> JobRequest:
    """What `tensors`, those of a request of `diffuse`, say of the job.

    Raises:
        InvalidRequest: an unknown or malformed tensor, or values out of range.
    """
    found = read_tensors(tensors, DIFFUSE.inputs)
    job = read_text(found, "job", most=_LONGEST_JOB_ID) if "job" in found else None
    level = 0
    if "priority" in found:
        level = _LEVELS.index(read_choice(found, DIFFUSE.input("priority")))
    return JobRequest(
        job=job,
        brings_picture=job is None or any(port.name in found for port in CONDITIONING),
        stop=bool(scalar(found, DIFFUSE.input("stop"), False)),
        slice_steps=scalar(found, DIFFUSE.input("slice_steps")),
        deadline=scalar(found, DIFFUSE.input("deadline")),
        level=level,
        queue_timeout=scalar(found, DIFFUSE.input("queue_timeout")) or None,
    )


@dataclass(slots=True, eq=False)
class Job:
    """A picture from its arrival to its end."""

    drawing: Drawing
    reply: Reply
    wanted: Sequence[str]
    """Names of the outputs of the last response."""
    request_id: str = ""
    journal: Journal = NOBODY
    deadline: float = math.inf
    """As `time.monotonic` has it."""
    queue_timeout: float | None = None
    """Seconds, as the caller gave them."""
    stopped: bool = False
    begun: bool = False
    compute_seconds: float = 0.0
    """How long its slices have taken."""
    losses: int = 0
    """Instances that were lost while they had it."""
    place: int | None = None
    """Its place in the queue, as the caller knows it."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Keeps the news of its place before the news that it has begun."""

    def tell_arrival(self) -> None:
        """Log what is asked for, without the words of the prompt."""
        request = self.drawing.request
        loras = set_text(request.loras)
        self.journal.tell("received", steps=self.steps_left, images=request.state.shape[1], loras=loras)

    def tell_end(self, error: BaseException | None) -> None:
        """Log how it ended, and how long each stage of it took."""
        seconds = {stage: round(took, 3) for stage, took in self.drawing.seconds.items()}
        self.journal.ended(error, seconds=seconds, steps_left=self.steps_left or None)

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return time.monotonic() >= self.deadline

    @property
    def is_to_end(self) -> bool:
        """Whether it is to end without its picture."""
        return self.stopped or self.is_late

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded where the picture is to end now."""
        if self.stopped or self.reply.is_abandoned():
            raise Cancelled("cancelled by the caller")
        if self.is_late:
            raise self.late()

    def late(self) -> DeadlineExceeded:
        """Why a picture ends for which the time is over."""
        if not self.is_late:
            return DeadlineExceeded(f"its queue_timeout of {self.queue_timeout:g} s passed while it waited")
        if not self.begun:
            return DeadlineExceeded("its deadline passed while it waited")
        return DeadlineExceeded(
            f"its deadline passed at step {self.drawing.step} of {self.drawing.request.end}"
        )

    def begin(self, pace: Pace, *, waiting: int) -> bool:
        """Tell the caller that its turn has come; False where it has come already."""
        with self.lock:
            if self.begun:
                return False
            self.begun = True
            self.reply.post(self.progress(pace, waiting=waiting))
            return True

    def show_place(self, place: int, *, waiting: int) -> None:
        """Tell the caller its place in the queue, 0 for the next one, where that is news."""
        with self.lock:
            if self.begun or place == self.place:
                return
            self.place = place
            self.reply.post({"kind": "queued", "place": place, "waiting": waiting})

    @property
    def steps_left(self) -> int:
        """Steps that have not run."""
        return self.drawing.request.end - self.drawing.step

    @property
    def work_per_step(self) -> float:
        """As of its drawing."""
        return self.drawing.work_per_step

    @property
    def work(self) -> float:
        """What is left of it; one step's work stands for what follows the last step."""
        return self.work_per_step * (self.steps_left + 1)

    def progress(self, pace: Pace, *, waiting: int) -> Mapping[str, Any]:
        """The event that says how far it is, while `waiting` requests wait."""
        return {
            "kind": "progress",
            "step": self.drawing.step - self.drawing.request.begin,
            "steps": self.drawing.request.end - self.drawing.request.begin,
            "seconds": round(self.compute_seconds, 3),
            "seconds_left": round(pace.seconds_of(self.work), 3),
            "place": 0,
            "waiting": waiting,
        }


def job_entry(job: Job, asked: JobRequest, *, wish: Wanted) -> Entry[Job, Wanted]:
    """The entry of `job`, which wants `wish` to be resident, in the queue."""
    now = time.monotonic()
    return Entry(
        job,
        wish,
        level=asked.level,
        work=job.work,
        expires=math.inf if asked.queue_timeout is None else now + asked.queue_timeout,
    )


class Pace:
    """How fast work is done, from what was done lately."""

    _NEW: Final = 0.3
    """Weight of the latest measurement in the average."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._per_work = 0.0
        self._per_request = 0.0

    def worked(self, work: float, seconds: float) -> None:
        """A slice of `work` took `seconds`."""
        with self._lock:
            self._per_work = self._averaged(self._per_work, seconds / work)

    def finished(self, seconds: float) -> None:
        """A request took `seconds` of computing."""
        with self._lock:
            self._per_request = self._averaged(self._per_request, seconds)

    def seconds_of(self, work: float) -> float:
        """How long `work` will take; 0 while nothing is known."""
        with self._lock:
            return self._per_work * work

    def queue_full(self) -> QueueFull:
        """The error where no more requests may wait, with the seconds after which one has probably ended."""
        with self._lock:
            seconds = max(1, math.ceil(self._per_request))
        return QueueFull(f"Exceeds maximum queue size; try again in {seconds} s")

    def _averaged(self, old: float, new: float) -> float:
        return new if old == 0.0 else (1 - self._NEW) * old + self._NEW * new
