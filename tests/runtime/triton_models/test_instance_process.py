"""What the process of an instance does, here in a thread: pictures, errors, a failed card."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.models import CONDITIONING
from intaglio.errors import ConfigError, DeviceFailed, IntaglioError
from intaglio.stages.diffuse.conditioning import Conditioning, read_conditioning
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio.telemetry.settings import FORMAT_VARIABLE
from intaglio.triton_models import instance_process
from intaglio.triton_models.instance_messages import DEVICE_FAILED_STATUS, Open
from intaglio.triton_models.instances import Instance, InstanceLost
from intaglio.triton_models.places import Place


@pytest.fixture
def opened(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Instance, threading.Thread]]:
    """An instance whose process is a thread with the engines of this build."""
    monkeypatch.setattr("intaglio.stages.diffuse.stage.open_backend", lambda manifest: tiny.backend)
    monkeypatch.setattr(Diffuse, "warm_up", lambda stage: None)
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    ours, theirs = socket.socketpair()
    connection = Connection(theirs.detach())

    def run() -> None:
        with connection:
            try:
                instance_process._serve(connection, connection.recv())
            except (EOFError, SystemExit):
                return

    thread = threading.Thread(target=run)
    instance = Instance(Place(0), tiny.manifest, tiny.folder, sharing=1)
    instance._connection = Connection(ours.detach())
    instance._send(Open(0, tiny.manifest, tiny.folder, True))
    thread.start()
    yield instance, thread
    instance.hang_up()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def request_read(tiny: Any, request_tensors: Any) -> Conditioning:
    controls = '[{"type": "pose", "pose": "waving-01"}]'
    with Preprocess(tiny.manifest, tiny.folder) as preprocess:
        made = preprocess(
            request_tensors(prompt="a fox", seed=1, steps=4, scheduler="euler_a", controls=controls)
        )
    names = {port.name for port in CONDITIONING}
    return read_conditioning({name: made[name] for name in made if name in names}, tiny.manifest)


def pixels_of(stage: Any, drawing: Drawing) -> Any:
    while not drawing.finished:
        stage.advance(drawing)
    return stage.finish(drawing, ["pixels", "timings"])["pixels"]


def test_an_instance_draws_what_one_process_draws(
    tiny: Any, opened: tuple[Instance, threading.Thread], request_read: Conditioning
) -> None:
    """Also a picture that came from another one after its first slice, and one whose steps had all run."""
    instance, _ = opened
    instance.wait_open()
    with Diffuse(tiny.manifest, tiny.folder, backend=tiny.backend) as stage:
        right = pixels_of(stage, Drawing(request_read, slice_steps=2))
        moved = Drawing(request_read, slice_steps=1)
        stage.advance(moved)
        over = Drawing(request_read)
        stage.advance(over)
    moved.embeddings = over.embeddings = None  # what another instance had stays there
    assert np.array_equal(pixels_of(instance, Drawing(request_read, slice_steps=2)), right)
    assert np.array_equal(pixels_of(instance, moved), right)
    instance.advance(over)
    assert np.array_equal(pixels_of(instance, over), right)
    assert instance.controlnets.resident


def test_an_error_is_the_requests_own(
    opened: tuple[Instance, threading.Thread],
    request_read: Conditioning,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its traceback is one line of the log, whatever the error repeats of what a caller sent."""
    forged = '{"time":"2026","level":"error","event":"forged"}'

    def fail(stage: Diffuse, drawing: Drawing) -> None:
        raise ValueError(f"no such word:\n{forged}")

    instance, _ = opened
    instance.wait_open()
    with monkeypatch.context() as patched:
        patched.setattr(Diffuse, "_advance", fail)
        with pytest.raises(IntaglioError, match=r"internal error \(ValueError\)"):
            instance.advance(Drawing(request_read))
    lines = capfd.readouterr().err.splitlines()
    assert forged not in lines
    (said,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert (said["level"], said["stage"], said["instance"]) == ("error", "diffuse", "diffuse_instance_0")
    assert said["traceback"].endswith(forged)
    instance.advance(Drawing(request_read))


def test_a_process_whose_card_failed_says_so_and_ends(
    opened: tuple[Instance, threading.Thread], request_read: Conditioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        raise SystemExit(status)

    def fail(stage: Diffuse, drawing: Drawing) -> None:
        raise DeviceFailed("cudaMemcpyAsync: an illegal memory access was encountered")

    instance, thread = opened
    instance.wait_open()
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(Diffuse, "_advance", fail)
    with pytest.raises(InstanceLost, match="instance 0: cudaMemcpyAsync: an illegal memory access"):
        instance.advance(Drawing(request_read))
    thread.join(20)
    assert statuses == [DEVICE_FAILED_STATUS]


def test_what_does_not_open_is_said(tiny: Any, tmp_path: Path) -> None:
    instance = Instance(Place(0), tiny.manifest, tmp_path, sharing=1)
    ours, theirs = socket.socketpair()
    instance._connection = Connection(ours.detach())
    with Connection(theirs.detach()) as connection:
        instance_process._serve(connection, Open(0, tiny.manifest, tmp_path, False))
        with pytest.raises(ConfigError, match="no vocabulary"):
            instance.wait_open()


def ignores_sigterm(pid: int) -> bool:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line]
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_what_stops_the_whole_group_does_not_end_a_process_that_draws(tiny: Any) -> None:
    """The server finishes what it has, and then closes the other end."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-m", instance_process.__name__]
    with subprocess.Popen(command, stdin=theirs.fileno(), stderr=subprocess.DEVNULL) as process:
        theirs.close()
        until = time.monotonic() + 20
        while not ignores_sigterm(process.pid) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        with Connection(ours.detach()) as connection:
            connection.send(Open(0, tiny.manifest, tiny.folder, False))
            assert connection.recv().error is not None, "these engines are for another runtime"
        assert process.wait(20) == 0
