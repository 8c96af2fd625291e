"""The instances of `diffuse` where several draw: a process for each card, or several on the CPU.

Each process has its engines and one resident set of LoRAs. The process of Triton's model has the queue, reads
requests and keeps the state of every picture after each slice, so that another instance can go on with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.ports import Tensors
from intaglio.contract.server import HANG_SECONDS
from intaglio.engines.interface import Array
from intaglio.errors import DeviceFailed, IntaglioError, Unavailable, single_line
from intaglio.interpreter import interpreter
from intaglio.loras.sets import set_digest
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.incoming import IncomingRequests, Wanted, wanted_of
from intaglio.triton_models.hang_watch import OPEN_SECONDS, Expected, HangWatch, Question
from intaglio.triton_models.instance_messages import (
    Advance,
    Advanced,
    Answer,
    Finish,
    Finished,
    LoraState,
    Open,
    ResidentControls,
    State,
)
from intaglio.triton_models.places import Place

__all__ = ["Instance", "InstanceLost", "Instances"]

_MODULE: Final = "intaglio.triton_models.instance_process"
_END_SECONDS: Final = 10.0
"""The longest that an instance may take to end that is told to."""
_LOOK_SECONDS: Final = 0.2
"""Between two looks whether an instance that opens is still needed."""
_ASSUMED_SWAP_SECONDS: Final = 1.0
"""Of an instance that has not swapped yet."""


class InstanceLost(Exception):  # noqa: N818  (as the names in intaglio.errors)
    """An instance can draw no more: its process ended or hangs, or its card failed."""


class Instance:
    """One process. One thread asks it; any thread may read what is known of it, and one may `look`."""

    def __init__(
        self,
        place: Place,
        manifest: BuildManifest,
        folder: Path,
        *,
        sharing: int,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        """`sharing` instances share the processors of this machine. `hang_seconds` is as in `server`."""
        self.place = place
        execution = manifest.execution
        threads = execution.threads or max(1, len(os.sched_getaffinity(0)) // sharing)
        own = execution.model_copy(update={"gpu": 0, "threads": threads})
        self._manifest = manifest.model_copy(update={"execution": own})
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._question = Question()
        self._expected = Expected(hang_seconds)
        self._hung = ""
        """Why the process was killed, where it was for that."""
        self._ends = threading.Lock()
        """Held while the connection is closed or shut down."""
        self._numbers: weakref.WeakKeyDictionary[Drawing, int] = weakref.WeakKeyDictionary()
        """The pictures that the process has."""
        self._given = 0
        self._earlier = State()
        """What the processes before this one had done."""
        self._state = State()

    # --- its process ---

    def start(self, *, hashes: bool) -> None:
        """Start the process, which opens its engines; `wait_open` says how that went.

        Raises:
            InstanceLost: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [interpreter(), "-P", "-m", _MODULE],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=self.place.environment(),
            )
        except OSError as error:
            ours.close()
            raise InstanceLost(f"{self.place.shown}: its process cannot be started: {error}") from error
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._numbers.clear()
        self._expected.forget()
        self._hung = ""
        self._earlier = self._state
        self._question.ask(OPEN_SECONDS)
        self._send(Open(self.place.number, self._manifest, self._folder, hashes))

    def wait_open(self, *, is_needless: Callable[[], bool] | None = None) -> None:
        """Wait until the engines are open, or until `is_needless` says that nobody needs them any more.

        Raises:
            IntaglioError: they do not open; the process has ended.
            InstanceLost: the process died meanwhile, or was ended as needless.
        """
        while is_needless is not None and not self._has_answer(_LOOK_SECONDS):
            if is_needless():
                self.close()
                raise self._lost("its process was ended while it opened, since nothing is left to draw")
        try:
            error = self._receive().error
        finally:
            self._question.end()
        if error is not None:
            self.close()
            raise error

    def hang_up(self) -> None:
        """Let the process end as soon as it looks for the next message."""
        self._question.end()
        with self._ends:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """End the process; what it draws is not waited for. A process that cannot be killed is left alone: a
        call of the driver holds it.
        """
        self.hang_up()
        process, self._process = self._process, None
        if process is None:
            return
        # One that hung has been killed: it ends now, or a call of the driver holds it.
        patience = 0.0 if self._hung else _END_SECONDS
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)

    def check(self) -> None:
        """Raise InstanceLost where the process has ended, also while nothing is asked of it."""
        if self._process is None or self._process.poll() is not None:
            raise self._lost(self._ending())

    def look(self, seconds: float) -> None:
        """Kill the process where it hangs; `seconds` have passed since the last look. The thread that waits
        for its answer then finds that it has ended.
        """
        with self._ends:
            process, connection = self._process, self._connection
            if process is None or connection is None or connection.poll():
                return
            limit = self._question.late(seconds)
            if limit is None:
                return
            self._question.end()
            self._hung = f"its process has not answered for {limit:.0f} s and was killed"
            process.kill()
            # Without waiting for its end: a process in a call of the driver may take for ever to end.
            with contextlib.suppress(OSError):  # its end was faster
                ours = socket.socket(fileno=connection.fileno())
                try:
                    ours.shutdown(socket.SHUT_RDWR)
                finally:
                    ours.detach()  # the connection closes it

    # --- pictures ---

    def advance(self, drawing: Drawing) -> None:
        """As `Diffuse.advance`.

        Raises:
            InstanceLost: the picture is as it was, and another instance may go on with it.
        """
        known = self._numbers.get(drawing)
        if known is None:
            self._given += 1
            self._numbers[drawing] = self._given
        number = self._numbers[drawing]
        message = Advance(number, drawing if known is None else None, frozenset(self._numbers.values()))
        result: Advanced = self._asked(message, Advanced, limit=self._slice_limit(drawing))
        seconds = result.seconds.get("denoise", 0.0) - drawing.seconds.get("denoise", 0.0)
        steps = result.step - drawing.step
        if steps:
            work = drawing.work_per_step * steps
            self._expected.did(drawing.slice_shapes, work=work, seconds=seconds)
        drawing.step, drawing.state = result.step, result.state
        drawing.seconds.update(result.seconds)

    def finish(self, drawing: Drawing, wanted: Sequence[str]) -> Mapping[str, Array]:
        """As `Diffuse.finish`, after `advance` of the same picture; InstanceLost as there. Another instance
        then brings the picture over with an empty slice.
        """
        message = Finish(self._numbers.pop(drawing), tuple(wanted))
        decoded = ("vae", drawing.request.state.shape) if "pixels" in wanted else None
        limit = self._expected.limit(decoded, work=drawing.work_per_step)
        result: Finished = self._asked(message, Finished, limit=limit)
        if decoded is not None:
            self._expected.did(decoded)
        drawing.seconds.update(result.seconds)
        return result.outputs

    def _slice_limit(self, drawing: Drawing) -> float:
        # One step's work stands for what comes before and after the steps.
        steps = drawing.next_end() - drawing.step + 1
        limit = self._expected.limit(drawing.slice_shapes, work=drawing.work_per_step * steps)
        swaps = self.needs_swap(wanted_of(drawing.request))
        return max(limit, OPEN_SECONDS) if swaps else limit

    def needs_swap(self, wanted: Wanted) -> bool:
        """As `Diffuse.needs_swap`, by what the process said last."""
        loras = set_digest(()) if self._state.loras is None else self._state.loras.digest
        return wanted.is_missing(loras, self._state.controlnets.resident)

    @property
    def swap_seconds(self) -> float:
        """How long a swap takes, by the last ones."""
        counts = [self._state.controlnets.counts]
        seconds = [one.last_seconds for one in counts if one.swaps]
        if self._state.loras is not None and self._state.loras.counts.swaps:
            seconds.append(self._state.loras.counts.last_seconds)
        return max(seconds, default=_ASSUMED_SWAP_SECONDS)

    @property
    def loras(self) -> LoraState | None:
        """What is known of its LoRAs; None where the set is fused."""
        return self._state.loras

    @property
    def controlnets(self) -> ResidentControls:
        """What is known of its ControlNets."""
        return self._state.controlnets

    # --- messages ---

    def _asked(self, message: Advance | Finish, kind: type[Any], *, limit: float) -> Any:
        self._question.ask(limit)
        try:
            self._send(message)
            answer = self._receive()
        finally:
            self._question.end()
        if isinstance(answer.error, DeviceFailed):
            self.close()
            raise self._lost(str(answer.error))
        if answer.error is not None:
            raise answer.error
        if not isinstance(answer.result, kind):
            raise TypeError(f"asked for {kind.__name__}, got {type(answer.result).__name__}")
        return answer.result

    def _send(self, message: Open | Advance | Finish) -> None:
        if self._connection is None:
            raise self._lost("its process has ended")
        try:
            self._connection.send(message)
        except OSError:
            raise self._lost(self._ending()) from None

    def _has_answer(self, seconds: float) -> bool:
        """Whether there is something to receive, an end too, within `seconds`."""
        return self._connection is None or self._connection.poll(seconds)

    def _receive(self) -> Answer:
        if self._connection is None:
            raise self._lost("its process has ended")
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._lost(self._ending()) from None
        except Exception as error:  # pickle's: whatever the class that it restores raises
            self.close()
            raise self._lost(f"its answer cannot be read: {single_line(str(error))}") from error
        answer.state.add_counts(self._earlier)
        self._state = answer.state
        return answer

    def _lost(self, why: str) -> InstanceLost:
        """Nothing is resident in an instance without a process."""
        loras = self._state.loras
        nothing = None if loras is None else LoraState((), counts=loras.counts)
        self._state = State(nothing, ResidentControls((), self._state.controlnets.counts))
        return InstanceLost(f"{self.place.shown}: {why}")

    def _ending(self) -> str:
        """How the process ended, which has closed its socket."""
        process = self._process
        self.close()
        code = 0 if process is None else process.poll()
        if self._hung:
            left = "" if code is not None else ", which a call of the driver prevents so far"
            return self._hung + left
        if code is None:
            return "its process closed its socket and cannot be killed"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with status {code}"


class Instances:
    """All of them. Entering starts them and opens their engines, or none; leaving ends them."""

    def __init__(
        self,
        manifest: BuildManifest,
        folder: Path,
        places: Sequence[Place],
        *,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        """`hang_seconds` is as in `server`."""
        self._manifest = manifest
        self._folder = folder
        self._incoming = IncomingRequests(manifest, folder, store=LoraStore(folder / LORAS_FOLDER))
        count = len(places)
        self.each = tuple(
            Instance(place, manifest, folder, sharing=count, hang_seconds=hang_seconds) for place in places
        )
        self._watch = HangWatch(self.each)

    def __enter__(self) -> Self:
        """Raises Unavailable with the first reason of an instance that does not open; then none is left."""
        self._watch.start()
        try:
            for instance in self.each:
                # All read the same files: one compares them, and the pages are in memory for the others.
                instance.start(hashes=instance is self.each[0])
            for instance in self.each:
                self._wait_open(instance)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, tensors: Tensors) -> Conditioning:
        """As `Diffuse.read`; any thread may call this."""
        return self._incoming.read(tensors, is_resident=self._is_resident)

    def wanted(self, request: Conditioning) -> Wanted:
        """What must be resident for `request`; any thread may call this."""
        return wanted_of(request)

    def _is_resident(self, loras: tuple[ResolvedLora, ...]) -> bool:
        digest = set_digest(loras)
        return any(
            one.loras is not None and one.loras.resident is not None and one.loras.digest == digest
            for one in self.each
        )

    @staticmethod
    def _wait_open(instance: Instance) -> None:
        try:
            instance.wait_open()
        except InstanceLost as error:
            raise Unavailable(str(error)) from error
        except IntaglioError as error:
            raise Unavailable(f"{instance.place.shown}: {error}") from error

    def _close(self) -> None:
        self._watch.close()
        for instance in self.each:
            instance.hang_up()
        for instance in self.each:
            instance.close()
