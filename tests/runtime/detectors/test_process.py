"""A real process of detectors: started when it is needed, ended when it fails, hangs or is idle."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors import process
from intaglio.detectors.annotate import Annotator
from intaglio.detectors.messages import Setting
from intaglio.detectors.opening import choose_detector
from intaglio.detectors.process import DetectorWorker
from intaglio.errors import ConfigError, DetectorFailed, InvalidRequest

from ...photographs import nobody, one_person


def encoded(photo: Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return encoded(Image.fromarray(pixels))


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def setting(folder: Path, idle_seconds: float = 60.0, **detectors: DetectorSource) -> Setting:
    return Setting(detectors=detectors, cache=folder / "kept", most_pixels=1 << 20, idle_seconds=idle_seconds)


@pytest.fixture
def worker(tmp_path: Path, pose_source: DetectorSource) -> Iterator[DetectorWorker]:
    absent = DetectorSource(kind="depth", file=tmp_path / "absent.onnx")
    with DetectorWorker(setting(tmp_path, pose=pose_source, depth=absent)) as ready:
        yield ready


def test_the_process_gives_what_the_detector_gives(
    worker: DetectorWorker, pose_source: DetectorSource
) -> None:
    assert worker.pid is None
    found = worker("pose", encoded(one_person()), name="a.png", until=soon())
    own = Annotator(choose_detector("pose", {"pose": pose_source}), None, most_pixels=1 << 20)
    expected = own(encoded(one_person()), name="a.png").detection
    np.testing.assert_array_equal(found.detection.map, expected.map)
    assert found.detection.people is not None
    assert expected.people is not None
    np.testing.assert_array_equal(found.detection.people, expected.people)
    pid = worker.pid
    assert worker("pose", encoded(one_person()), name="a.png", until=soon()).cached
    assert worker.pid == pid


def test_what_is_refused_names_the_photograph_and_stops_nothing(worker: DetectorWorker) -> None:
    with pytest.raises(InvalidRequest, match=r"^b\.png: no person was found; allowed: a picture that"):
        worker("pose", encoded(nobody()), name="b.png", until=soon())
    pid = worker.pid
    with pytest.raises(InvalidRequest, match=r"^c\.png: not an image"):
        worker("pose", b"nothing", name="c.png", until=soon())
    with pytest.raises(ConfigError, match=r"^detectors\.depth: .*absent\.onnx: no such file"):
        worker("depth", noise(1), name="d.png", until=soon())
    assert worker("canny", noise(1), name="d.png", until=soon()).detection.map.shape == (24, 32, 3)
    assert worker.pid == pid


def test_a_cache_that_cannot_be_written_costs_only_time(
    worker: DetectorWorker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("a file where the folder of kept detections should be")
    found = worker("canny", noise(1), name="a.png", until=soon())
    assert found.detection.map.shape == (24, 32, 3)
    assert "detections are not kept" in capfd.readouterr().err


def test_a_network_that_fails_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no network")
    broken = DetectorSource(kind="depth", file=file)
    with DetectorWorker(setting(tmp_path, depth=broken)) as worker:
        with pytest.raises(ConfigError, match=r"broken\.onnx: does not load"):
            worker("depth", noise(1), name="a.png", until=soon())
        assert worker("canny", noise(1), name="a.png", until=soon()).detection.people is None


def stopped(worker: DetectorWorker) -> psutil.Process:
    """The process, started and halted."""
    worker("canny", noise(0), name="first.png", until=soon())
    assert worker.pid is not None
    found = psutil.Process(worker.pid)
    found.send_signal(signal.SIGSTOP)
    return found


def test_a_process_that_hangs_is_ended_at_the_deadline(worker: DetectorWorker) -> None:
    halted = stopped(worker)
    began = time.monotonic()
    with pytest.raises(DetectorFailed, match=r"^detector canny: a\.png: .*did not answer in time.*deadline"):
        worker("canny", noise(1), name="a.png", until=soon(0.5))
    assert 0.4 < time.monotonic() - began < 5
    assert not halted.is_running()
    assert worker("canny", noise(1), name="a.png", until=soon()).detection.people is None


def test_a_large_photograph_does_not_wait_for_a_process_that_hangs(worker: DetectorWorker) -> None:
    """It does not fit into the socket, so sending it would wait."""
    stopped(worker)
    with pytest.raises(DetectorFailed, match="did not answer in time"):
        worker("canny", bytes(8 << 20), name="a.png", until=soon(0.5))


def test_a_process_that_is_killed_is_named_and_replaced(
    worker: DetectorWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    halted = stopped(worker)
    sent, receive = threading.Event(), process.receive

    def receive_later(*given: Any, **named: Any) -> Any:
        sent.set()
        return receive(*given, **named)

    monkeypatch.setattr(process, "receive", receive_later)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(worker, "canny", noise(1), name="a.png", until=soon())
        assert sent.wait(30)
        halted.kill()
        with pytest.raises(DetectorFailed, match=r"canny: its process was killed by SIGKILL while it read a"):
            asked.result(10)
    assert worker("canny", noise(1), name="a.png", until=soon()).detection.people is None


def test_a_process_that_was_killed_before_is_not_missed(worker: DetectorWorker) -> None:
    halted = stopped(worker)
    halted.kill()
    psutil.wait_procs([halted], timeout=10)
    wait_for_the_end(worker)
    assert worker("canny", noise(1), name="a.png", until=soon()).detection.people is None


def wait_for_the_end(worker: DetectorWorker) -> None:
    """Until the worker knows that its process has ended; another thread may be looking at the process."""
    until = soon()
    while worker.pid is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert worker.pid is None


def test_an_idle_process_ends_and_leaves_nothing(tmp_path: Path) -> None:
    with DetectorWorker(setting(tmp_path, idle_seconds=0.2)) as worker:
        worker("canny", noise(0), name="a.png", until=soon())
        assert worker.pid is not None
        first = psutil.Process(worker.pid)
        _, alive = psutil.wait_procs([first], timeout=10)
        assert not alive
        wait_for_the_end(worker)
        assert worker("canny", noise(1), name="a.png", until=soon()).detection.people is None
    assert worker.pid is None


def test_leaving_ends_the_process(tmp_path: Path) -> None:
    with DetectorWorker(setting(tmp_path)) as worker:
        worker("canny", noise(0), name="a.png", until=soon())
        assert worker.pid is not None
        running = psutil.Process(worker.pid)
    assert not running.is_running()


def test_photographs_wait_for_each_other_within_one_deadline(worker: DetectorWorker) -> None:
    stopped(worker)
    began = time.monotonic()
    until = soon(0.6)
    failures: list[str] = []

    def ask(seed: int) -> None:
        try:
            worker("canny", noise(seed), name=f"{seed}.png", until=until)
        except DetectorFailed as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    assert time.monotonic() - began < 5


def test_a_photograph_that_came_too_late_leaves_the_process(worker: DetectorWorker) -> None:
    worker("canny", noise(0), name="a.png", until=soon())
    pid = worker.pid
    with pytest.raises(DetectorFailed, match=r"^detector canny: b\.png: other photographs took all the time"):
        worker("canny", noise(1), name="b.png", until=time.monotonic())
    assert worker.pid == pid


def test_no_photograph_gets_the_answer_to_another(
    worker: DetectorWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out after the question was sent."""
    first = worker("canny", noise(0), name="a.png", until=soon())
    with monkeypatch.context() as patched:

        def fail(*given: object, **named: object) -> None:
            raise MemoryError

        patched.setattr(process, "receive", fail)
        with pytest.raises(MemoryError):
            worker("canny", noise(1), name="b.png", until=soon())
    again = worker("canny", noise(0), name="a.png", until=soon())
    np.testing.assert_array_equal(again.detection.map, first.detection.map)
