"""What instances answer, and processes that end, hang or cannot open their engines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import CONDITIONING
from intaglio.contract.server import HANG_SECONDS
from intaglio.errors import DeviceFailed, InvalidRequest, Unavailable
from intaglio.loras.sets import set_digest
from intaglio.loras.switch import SwapCounts
from intaglio.stages.diffuse.conditioning import read_conditioning
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.incoming import Wanted
from intaglio.stages.preprocess.stage import Preprocess
from intaglio.triton_models import instances
from intaglio.triton_models.hang_watch import OPEN_SECONDS
from intaglio.triton_models.instance_messages import (
    Advanced,
    Answer,
    Finished,
    LoraState,
    Open,
    ResidentControls,
    State,
)
from intaglio.triton_models.instances import InstanceLost, Instances
from intaglio.triton_models.places import Place


def test_instances_open_together_or_not_at_all(tiny: Any) -> None:
    """The engines of this build are for another runtime than its manifest says."""
    before = set(psutil.Process().children())
    instances = Instances(tiny.manifest, tiny.folder, (Place(0), Place(1)))
    with pytest.raises(Unavailable, match=r"^instance 0: "), instances:
        pass
    assert set(psutil.Process().children()) <= before


def test_instances_share_the_processors(tiny: Any) -> None:
    instances = Instances(tiny.manifest, tiny.folder, (Place(0), Place(1), Place(2)))
    threads = {one._manifest.execution.threads for one in instances.each}
    assert threads == {max(1, len(os.sched_getaffinity(0)) // 3)}
    assert {one._manifest.execution.gpu for one in instances.each} == {0}, "each sees one card"


class Peer:
    """The other end of an instance's socket, which answers as it is told."""

    def __init__(self, instance: Any, *answers: Answer) -> None:
        ours, theirs = socket.socketpair()
        instance._connection = Connection(ours.detach())
        self.asked: list[Any] = []
        self._connection = Connection(theirs.detach())
        self._answers = answers
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._connection:
            for answer in self._answers:
                self.asked.append(self._connection.recv())
                self._connection.send(answer)

    def join(self) -> None:
        self._thread.join(10)


def state(swaps: int, *resident: str) -> State:
    loras = tuple(ResolvedLora(id=name, sha256="0" * 64, weight=1.0) for name in resident)
    return State(LoraState(loras, set_digest(loras), SwapCounts(swaps=swaps, last_seconds=0.5)))


@pytest.fixture
def instance(tiny: Any) -> Any:
    return Instances(tiny.manifest, tiny.folder, (Place(0), Place(1))).each[1]


@pytest.fixture
def drawing(tiny: Any, request_tensors: Any) -> Drawing:
    with Preprocess(tiny.manifest, tiny.folder) as preprocess:
        made = preprocess(request_tensors(prompt="a fox", seed=1, steps=5, scheduler="euler_a"))
    names = {port.name for port in CONDITIONING}
    tensors = {name: values for name, values in made.items() if name in names}
    return Drawing(read_conditioning(tensors, tiny.manifest), slice_steps=1)


def test_a_picture_goes_over_once_and_comes_back_after_each_slice(instance: Any, drawing: Drawing) -> None:
    """Whichever pictures are over, the process forgets."""
    first = Advanced(drawing.step + 1, drawing.state + 1, {"denoise": 1.0})
    second = Advanced(drawing.step + 2, drawing.state + 2, {"denoise": 2.0})
    peer = Peer(instance, Answer(state(1, "mara"), first), Answer(state(1, "mara"), second))
    begin = drawing.step
    instance.advance(drawing)
    instance.advance(drawing)
    peer.join()
    assert (drawing.step, drawing.seconds) == (begin + 2, {"denoise": 2.0})
    assert np.array_equal(drawing.state, second.state)
    sent, again = peer.asked
    assert isinstance(sent.drawing, Drawing)
    assert np.array_equal(sent.drawing.request.token_ids, drawing.request.token_ids)
    assert (again.drawing, again.number, again.kept) == (None, sent.number, frozenset({sent.number}))
    mara = set_digest(instance.loras.resident)
    assert not instance.needs_swap(Wanted(mara, frozenset()))
    assert instance.needs_swap(Wanted(set_digest(()), frozenset()))
    assert instance.swap_seconds == 0.5


def test_an_instance_whose_card_failed_is_lost_and_its_picture_is_not(
    instance: Any, drawing: Drawing
) -> None:
    lost = Answer(state(3, "mara"), error=DeviceFailed("an illegal memory access was encountered"))
    peer = Peer(instance, lost)
    begin = drawing.step
    with pytest.raises(InstanceLost, match=r"^instance 1: an illegal memory access"):
        instance.advance(drawing)
    peer.join()
    assert drawing.step == begin
    assert not instance.needs_swap(Wanted(set_digest(()), frozenset())), "the next process has no set"
    with pytest.raises(InstanceLost, match="its process has ended"):
        instance.advance(drawing)


def test_errors_of_a_request_are_its_own_and_a_silent_end_is_not(instance: Any, drawing: Drawing) -> None:
    refused = InvalidRequest("loras", "too large", allowed="less")
    peer = Peer(instance, Answer(state(0), error=refused))
    with pytest.raises(InvalidRequest, match="loras: too large; allowed: less"):
        instance.advance(drawing)
    peer.join()
    with pytest.raises(InstanceLost, match=r"^instance 1: its process ended"):
        instance.advance(drawing)


def test_counts_go_on_in_the_next_process(instance: Any, drawing: Drawing) -> None:
    """A counter of Prometheus never goes down."""
    done = Advanced(drawing.step, drawing.state, {})
    peers = [Peer(instance, Answer(state(3), done))]
    instance.advance(drawing)
    instance._earlier = instance._state  # as `start` does
    peers.append(Peer(instance, Answer(state(1), done), Answer(state(2), done)))
    instance.advance(drawing)
    instance.advance(drawing)
    for peer in peers:
        peer.join()
    assert instance.loras.counts.swaps == 5


def test_counts_outlast_a_process_that_does_not_open(instance: Any, drawing: Drawing) -> None:
    done = Advanced(drawing.step, drawing.state, {})
    peers = [Peer(instance, Answer(state(3), done))]
    instance.advance(drawing)
    instance._earlier = instance._state  # as `start` does
    peers.append(Peer(instance, Answer(State(), error=Unavailable("no memory"))))
    instance._send(Open(1, instance._manifest, instance._folder, True))
    with pytest.raises(Unavailable, match="no memory"):
        instance.wait_open()
    assert instance.loras.counts.swaps == 3
    instance._earlier = instance._state
    peers.append(Peer(instance, Answer(state(1), done)))
    instance.advance(drawing)
    for peer in peers:
        peer.join()
    assert instance.loras.counts.swaps == 4


def draw_slice(instance: Any, drawing: Drawing, *, steps: int = 1) -> None:
    """A slice of so many steps, which takes no time."""
    peer = Peer(instance, Answer(state(0), Advanced(drawing.step + steps, drawing.state, {})))
    instance.advance(drawing)
    peer.join()


HANGS = """
import signal
import sys
from multiprocessing.connection import Connection

signal.signal(signal.SIGTERM, signal.SIG_IGN)
with Connection(0) as connection:
    connection.recv()
    print("asked", flush=True)
    signal.pause()
"""
"""A process that takes a question and never answers."""


class Unkillable:
    """In the place of a process that a call of the driver holds: no test can make the kernel hold one."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def poll(self) -> None: ...
    def kill(self) -> None: ...

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        raise subprocess.TimeoutExpired("instance", seconds)


def asked(instance: Any, drawing: Drawing) -> Future[None]:
    """`instance` is asked for a slice; the future says what it raised."""
    future: Future[None] = Future()

    def ask() -> None:
        try:
            instance.advance(drawing)
        except InstanceLost as lost:
            future.set_exception(lost)

    threading.Thread(target=ask, daemon=True).start()
    return future


def test_an_instance_that_hangs_is_killed_and_its_picture_is_as_it_was(
    instance: Any, drawing: Drawing
) -> None:
    ours, theirs = socket.socketpair()
    begin = drawing.step
    with (
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", HANGS], stdin=theirs.fileno(), stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        theirs.close()
        instance._process, instance._connection = process, Connection(ours.detach())
        lost = asked(instance, drawing)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        instance.look(1)
        instance.look(OPEN_SECONDS - 1)
        assert process.poll() is None, "it may compile kernels"
        instance.look(2)
        with pytest.raises(
            InstanceLost, match=r"^instance 1: its process has not answered for 900 s and was"
        ):
            lost.result(30)
    assert process.returncode == -signal.SIGKILL
    assert drawing.step == begin
    instance.look(10 * OPEN_SECONDS)  # nothing is asked any more


def test_an_instance_that_cannot_be_killed_keeps_nobody_waiting(
    instance: Any, drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is asked nor while it is ended; its socket is still open."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(instances, "_END_SECONDS", 0.01)
    with theirs:
        process = Unkillable()
        instance._process, instance._connection = process, Connection(ours.detach())
        lost = asked(instance, drawing)
        assert theirs.recv(1), "the question"
        instance.look(1)
        instance.look(OPEN_SECONDS + 1)
        with pytest.raises(InstanceLost, match=r"900 s and was killed, which a call of the driver prevents"):
            lost.result(30)
        assert process.waited == [0.0, 0.01], "it was killed before, so only its end is waited for"


def test_an_answer_that_nobody_has_read_yet_is_one(instance: Any) -> None:
    """Instances open beside each other, and are waited for one after another."""
    ours, theirs = socket.socketpair()
    with Connection(theirs.detach()) as peer:
        instance._process, instance._connection = Unkillable(), Connection(ours.detach())
        instance._question.ask(OPEN_SECONDS)
        peer.send(Answer(state(0)))
        instance.look(1)
        instance.look(OPEN_SECONDS + 1)
        instance.wait_open()
        instance.hang_up()


def test_what_opens_controlnets_may_take_as_long_as_opening(instance: Any, drawing: Drawing) -> None:
    """The engines of one may have to come from a slow disk."""
    draw_slice(instance, drawing)
    assert instance._slice_limit(drawing) == HANG_SECONDS
    request = replace(drawing.request, links=(SimpleNamespace(network="pose", active=lambda *_: True),))  # type: ignore[arg-type]
    controlled = Drawing(drawing.request, slice_steps=1)
    controlled.request = request
    instance._expected.did(controlled.slice_shapes)
    assert instance._slice_limit(controlled) == OPEN_SECONDS
    instance._state.controlnets = ResidentControls(("pose",))
    assert instance._slice_limit(controlled) == HANG_SECONDS


def test_what_swaps_loras_may_take_as_long_as_opening(instance: Any, drawing: Drawing) -> None:
    """Their files may have to come from a slow disk, too."""
    draw_slice(instance, drawing)
    assert instance._slice_limit(drawing) == HANG_SECONDS
    loras = state(0, "mara").loras
    assert loras is not None
    instance._state.loras = loras
    assert instance._slice_limit(drawing) == OPEN_SECONDS, "it takes them away"
    other = Drawing(replace(drawing.request, loras=loras.resident), slice_steps=1)
    assert instance._slice_limit(other) == HANG_SECONDS, "they are there"


def test_an_empty_slice_says_nothing_of_its_shape(instance: Any, drawing: Drawing) -> None:
    """It brings over a picture whose steps have run elsewhere. The next slice may compile kernels."""
    over = Drawing(replace(drawing.request, begin=drawing.request.end))
    assert instance._slice_limit(over) == HANG_SECONDS, "no network runs"
    draw_slice(instance, over, steps=0)
    assert instance._slice_limit(drawing) == OPEN_SECONDS


def test_only_a_picture_that_is_decoded_says_how_long_that_takes(instance: Any, drawing: Drawing) -> None:
    limits: list[float] = []
    ask = instance._question.ask
    instance._question.ask = lambda limit: limits.append(limit) or ask(limit)
    for wanted in (("state",), ("pixels",), ("state", "pixels")):
        picture = Drawing(replace(drawing.request, begin=drawing.request.end))
        draw_slice(instance, picture, steps=0)
        limits.clear()
        peer = Peer(instance, Answer(state(0), Finished({}, {})))
        instance.finish(picture, wanted)
        peer.join()
        assert limits == [OPEN_SECONDS if wanted == ("pixels",) else HANG_SECONDS]


class Unreadable:
    """Nothing that pickle can restore."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("as another version of intaglio may have it",)


def test_an_instance_whose_answer_cannot_be_read_is_lost(instance: Any, drawing: Drawing) -> None:
    """Its thread goes on: an error of another kind would end it, and requests would wait for ever."""
    peer = Peer(instance, Unreadable())  # type: ignore[arg-type]
    with pytest.raises(InstanceLost, match=r"^instance 1: its answer cannot be read: invalid literal"):
        instance.advance(drawing)
    peer.join()


def test_an_instance_that_nobody_needs_is_not_waited_for(instance: Any) -> None:
    ours, theirs = socket.socketpair()
    with Connection(theirs.detach()) as peer:
        instance._connection = Connection(ours.detach())
        with pytest.raises(InstanceLost, match="since nothing is left to draw"):
            instance.wait_open(is_needless=lambda: True)
        with pytest.raises(EOFError):
            peer.recv()
