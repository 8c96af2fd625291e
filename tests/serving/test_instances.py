"""Two instances of `diffuse` on the CPU behind one queue: sets of LoRAs, one that is killed or hangs."""

from __future__ import annotations

import itertools
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pytest

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.serving.change import LoadFailed
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.health import LIVE_PATH, PATH
from intaglio.serving.server import Server
from intaglio.serving.stubs import stubs_of
from intaglio.serving.versions import REPOSITORY as REPOSITORY_FOLDER
from intaglio_client import NO_RETRIES, Client, Image

from .conftest import FUSED_SIZE, REPOSITORY, fused_build
from .streams import PlainStream, pixels_of, streamed
from .test_metrics import check_metrics
from .test_stream import ENDLESS
from .test_watch import changed_lora

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

CLIENTS: Final = 8
SETS: Final[tuple[list[tuple[str, float]], ...]] = (
    [],
    [("night", 1.0)],
    [("mara", 1.0)],
    [("mara", 1.0), ("night", 0.5)],
)
HANG_SECONDS: Final = 5
"""The least that is allowed. Slices of this size take a tenth of a second."""
ASKED: Final[Any] = {"width": FUSED_SIZE[0], "height": FUSED_SIZE[1], "steps": 6, "seed": 5}
PROMPT: Final = "a person in a red sweater"


FAILING_INSTANCE: Final = """
from pathlib import Path

from intaglio.errors import DeviceFailed
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.triton_models import instance_process

advance = Diffuse.advance


def failing(self, drawing):
    try:
        Path(__file__).with_name("lost").unlink()
    except FileNotFoundError:
        return advance(self, drawing)
    raise DeviceFailed("cudaMemcpyAsync: lost")


Diffuse.advance = failing
if __name__ == "__main__":
    instance_process.main()
"""
"""The process of an instance whose card fails once the file `lost` is beside this one."""
FAILING_MODEL: Final = """
import os

from intaglio.triton_models import instances
from intaglio.triton_models.diffuse import DiffuseModel as TritonPythonModel

instances._MODULE = "failing_instance"
os.environ["PYTHONPATH"] = {folder!r}
"""


def swap_build(miniature: Deployment, folder: Path, name: str, **changes: object) -> Deployment:
    """A build of the miniature that swaps LoRAs, with all stages of the one that `make demo` uses."""
    fused_build(
        miniature,
        folder,
        {},
        name=name,
        swap="all",
        registry=str(REPOSITORY / "configs/loras.yaml"),
        execution={"slice_steps": 2, "threads": 1},
        **changes,
    )
    return load_deployment(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def two(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return swap_build(miniature, tmp_path_factory.mktemp("two"), "two", server={"instances": 2})


@pytest.fixture(scope="module")
def alone(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return swap_build(miniature, tmp_path_factory.mktemp("alone"), "alone")


def figures(server: Server, name: str) -> dict[str, float]:
    """The metric `name` by the instance, "" where there is one."""
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith((f"{name} ", f"{name}{{")):
            labels = line.partition("{")[2].partition("}")[0]
            found[labels.removeprefix('gpu="').removesuffix('"')] = float(line.split()[-1])
    return found


def swaps(*servers: Server) -> float:
    return sum(sum(figures(server, "intaglio_lora_swaps_total").values()) for server in servers)


def wait_until(reached: Callable[[], bool], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.05)


def instance_processes(server: Server, *, version: int = 1) -> list[psutil.Process]:
    """Those of a version of `diffuse`."""
    stubs = stubs_of(server.process.pid)
    stub = next(one for one in stubs if one.instance.startswith("diffuse_") and one.version == version)
    found = stub.process.children()
    return [child for child in found if any("instance_process" in word for word in child.cmdline())]


class Load:
    """Clients that ask for one picture after another, each with another set than the time before."""

    def __init__(self, servers: list[Server], stack: ExitStack) -> None:
        """Requests go to `servers` in turn."""
        self._clients = [
            stack.enter_context(Client(server.grpc_url, deadline=120, retries=NO_RETRIES))
            for server in servers
        ]
        self._turn = itertools.count()
        self.done = threading.Semaphore(0)
        """Released by every picture."""

    def run(self, each: int, *, only: int | None = None) -> list[tuple[int, Image]]:
        """`each` pictures of every client, with the numbers of their sets: all, or `only` one."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = pool.map(lambda number: self._ask(number, each, only), range(CLIENTS))
            return list(itertools.chain(*asked))

    def _ask(self, number: int, each: int, only: int | None) -> list[tuple[int, Image]]:
        found = []
        for place in range(each):
            which = (number + place) % len(SETS) if only is None else only
            client = self._clients[next(self._turn) % len(self._clients)]
            found.append((which, client.generate(PROMPT, **ASKED, loras=SETS[which])))
            self.done.release()
        return found


@pytest.fixture(scope="module")
def in_turn(alone: Deployment, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, list[Any]]:
    """Swaps of two servers that get requests in turn, and the right pixels for each set."""
    folder = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        servers = []
        for name in ("first.log", "second.log"):
            servers.append(stack.enter_context(Server(alone, endpoints=Endpoints(), log=folder / name)))
        client = stack.enter_context(Client(servers[0].grpc_url, deadline=120))
        right = [client.generate(PROMPT, **ASKED, loras=loras).pixels for loras in SETS]
        before = swaps(*servers)
        Load(servers, stack).run(each=4)
        return swaps(*servers) - before, right


def test_instances_share_sets_and_one_that_is_killed_costs_no_picture(
    two: Deployment, in_turn: tuple[float, list[Any]]
) -> None:
    """Fewer swaps than with round robin, and every picture with its own set."""
    most, right = in_turn
    with Server(two, endpoints=Endpoints()) as server, ExitStack() as stack:
        load = Load([server], stack)
        pictures = load.run(each=4)
        assert swaps(server) < most, f"{most} where requests go to instances in turn"
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, each=2)
            for _ in range(len(pictures) + 2):
                load.done.acquire()
            victim = instance_processes(server)[0]
            victim.send_signal(signal.SIGSTOP)  # so that it has a picture when it is killed
            wait_until(lambda: figures(server, "intaglio_running")["0"] == 1)
            victim.send_signal(signal.SIGKILL)
            pictures += running.result()
        assert len(pictures) == CLIENTS * 6
        for which, picture in pictures:
            assert np.array_equal(picture.pixels, right[which]), SETS[which]
        assert figures(server, "intaglio_pictures_moved_total") == {"0": 1, "1": 0}
        wait_until(lambda: figures(server, "intaglio_instance_up") == {"0": 1, "1": 1})
        assert figures(server, "intaglio_instance_restarts_total") == {"0": 1, "1": 0}
        assert figures(server, "intaglio_requests_finished_total")[""] == CLIENTS * 6
        assert min(figures(server, "intaglio_steps_total").values()) > 0, "both draw"
        check_metrics(server)


@pytest.mark.long
def test_an_instance_that_hangs_is_replaced_and_its_picture_goes_on(
    miniature: Deployment, in_turn: tuple[float, list[Any]], tmp_path: Path
) -> None:
    """It is stopped and not killed: its process is there, and so is its socket."""
    _, right = in_turn
    several = {"instances": 2, "hang_seconds": HANG_SECONDS}
    with ExitStack() as stack:
        server = stack.enter_context(
            Server(swap_build(miniature, tmp_path, "hangs", server=several), endpoints=Endpoints())
        )
        load = Load([server], stack)
        pictures: list[tuple[int, Image]] = []

        def draws() -> bool:
            pictures.extend(load.run(each=1, only=1))
            return min(figures(server, "intaglio_steps_total").values()) > 0

        # A first slice of a shape and a swap may take 15 minutes, so both instances have had them.
        wait_until(draws)
        victim, other = instance_processes(server)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, each=2, only=1)
            for _ in range(len(pictures) + 2):
                load.done.acquire()
            victim.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            pictures += running.result()
            took = time.monotonic() - stopped
        assert took > HANG_SECONDS, "it had a picture, which waited for the limit"
        for which, picture in pictures:
            assert np.array_equal(picture.pixels, right[which]), SETS[which]
        assert figures(server, "intaglio_requests_total")[""] == len(pictures), "none twice"
        assert figures(server, "intaglio_requests_finished_total")[""] == len(pictures)
        assert figures(server, "intaglio_pictures_moved_total") == {"0": 1, "1": 0}
        wait_until(lambda: figures(server, "intaglio_instance_up") == {"0": 1, "1": 1})
        assert figures(server, "intaglio_instance_restarts_total") == {"0": 1, "1": 0}
        assert not victim.is_running()
        assert other in instance_processes(server)
        assert f"has not answered for {HANG_SECONDS} s and was killed" in server.log.read_text()


@pytest.mark.long
def test_a_card_that_fails_is_taken_out_and_its_pictures_are_drawn_by_the_other(
    miniature: Deployment, in_turn: tuple[float, list[Any]], tmp_path: Path
) -> None:
    """The process of that card alone ends; the one with the queue, and so Triton, goes on."""
    _, right = in_turn
    deployment = swap_build(miniature, tmp_path, "fails", server={"instances": 2})
    (tmp_path / "failing_instance.py").write_text(FAILING_INSTANCE)
    program = deployment.build_folder / REPOSITORY_FOLDER / "diffuse" / "1" / "model.py"
    program.unlink()  # it may be a hard link
    program.write_text(FAILING_MODEL.format(folder=str(tmp_path)))
    with ExitStack() as stack:
        server = stack.enter_context(Server(deployment, endpoints=Endpoints()))
        load = Load([server], stack)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, each=2)
            load.done.acquire()
            (tmp_path / "lost").touch()
            pictures = running.result()
        assert not (tmp_path / "lost").exists()
        for which, picture in pictures:
            assert np.array_equal(picture.pixels, right[which]), SETS[which]
        wait_until(lambda: figures(server, "intaglio_instance_up") == {"0": 1, "1": 1})
        assert sum(figures(server, "intaglio_instance_restarts_total").values()) == 1
        assert sum(figures(server, "intaglio_pictures_moved_total").values()) >= 1
        assert figures(server, "intaglio_requests_finished_total")[""] == CLIENTS * 2
        assert figures(server, "intaglio_requests_failed_total")[""] == 0
        assert "cudaMemcpyAsync: lost; restart 1 of 5" in server.log.read_text()


@pytest.mark.long
def test_a_new_version_of_a_lora_and_the_way_back_reach_every_instance(
    two: Deployment, tmp_path: Path
) -> None:
    # So long that the queue lasts longer than the time for which one instance leaves to the other what that
    # one has resident.
    night: Any = {**ASKED, "steps": 20, "loras": [("night", 1.0)]}
    store = LoraStore(two.build_folder / LORAS_FOLDER)
    before = store.current()
    with ExitStack() as stack:
        stack.callback(store.write, before)
        server = stack.enter_context(Server(two, endpoints=Endpoints()))
        client = stack.enter_context(Client(server.grpc_url, deadline=120))

        def drawn() -> set[bytes]:
            """The pictures that both instances make."""
            steps = figures(server, "intaglio_steps_total")
            found: set[bytes] = set()
            with ThreadPoolExecutor(CLIENTS) as pool:
                for _ in range(5):
                    asking = [pool.submit(client.generate, PROMPT, **night) for _ in range(CLIENTS)]
                    found |= {one.result().pixels.tobytes() for one in asking}
                    now = figures(server, "intaglio_steps_total")
                    if all(now[name] > steps[name] for name in now):
                        return found
            raise AssertionError("one of them draws nothing")

        (old,) = drawn()
        digest, _ = store.put("night", changed_lora(tmp_path / "night.safetensors", 0.5))
        store.publish_version("night", digest, keep=3)
        (new,) = drawn()
        assert new != old
        store.roll_back("night")
        assert drawn() == {old}


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.status)


def test_liveness_does_not_tell_that_the_only_instance_hangs(server: Server) -> None:
    """As docs/several_cards.md says; the metrics tell it."""
    with PlainStream(server.grpc_url, **ENDLESS) as stream:
        stub = next(one for one in stubs_of(server.process.pid) if one.instance.startswith("diffuse_"))
        stream.until("progress")
        wait_until(lambda: figures(server, "intaglio_running")[""] == 1)  # it is reported once a second
        stub.process.send_signal(signal.SIGSTOP)
        try:
            steps = figures(server, "intaglio_steps_total")[""]
            for _ in range(4):
                assert status_of(f"http://{server.http_url}{LIVE_PATH}") == 200
                assert status_of(f"http://{server.http_url}{PATH}") == 200
                time.sleep(0.5)
            assert figures(server, "intaglio_running")[""] == 1
            assert figures(server, "intaglio_steps_total")[""] == steps
        finally:
            stub.process.send_signal(signal.SIGCONT)
        wait_until(lambda: figures(server, "intaglio_steps_total")[""] > steps)


@pytest.mark.long
def test_streams_go_on_and_a_new_build_is_loaded_by_all_or_none(
    two: Deployment, miniature: Deployment
) -> None:
    """A stream whose instance is killed tells each step once and ends with its picture."""
    asked = {**ASKED, "prompt": PROMPT, "slice_steps": 1, "preview": 64}
    with ExitStack() as stack:
        server = stack.enter_context(Server(two, endpoints=Endpoints()))
        client = stack.enter_context(Client(server.grpc_url, deadline=120))
        right = client.generate(PROMPT, **ASKED).pixels
        victim = instance_processes(server)[0]
        victim.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor(2) as pool:
            streams = [pool.submit(streamed, server.grpc_url, **asked) for _ in range(2)]
            wait_until(lambda: figures(server, "intaglio_running")["0"] == 1)
            victim.send_signal(signal.SIGKILL)
            ended = [stream.result() for stream in streams]
        for stream in ended:
            assert stream.outcome == "result", stream.error
            assert pixels_of(stream.images) == [right.tobytes()]
            assert [event["step"] for event in stream.of("progress")] == list(range(ASKED["steps"] + 1))
            assert len(stream.previews) >= 1
        wait_until(lambda: figures(server, "intaglio_instance_up") == {"0": 1, "1": 1})

        swap_build(miniature, two.folder, "two", limits={"steps": 40}, server={"instances": 2})
        damaged = two.build_folder / read_manifest(two.build_folder).networks["vae_decoder"].path
        whole = damaged.read_bytes()
        damaged.unlink()  # the file of the stage has other links
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        before = instance_processes(server)
        with pytest.raises(LoadFailed, match="vae_decoder"):
            server.reload()
        assert instance_processes(server) == before
        assert np.array_equal(client.generate(PROMPT, **ASKED).pixels, right)
        damaged.unlink()
        damaged.write_bytes(whole)
        done = server.reload()
        assert done is not None
        assert len(instance_processes(server, version=done.now.number)) == 2
        assert np.array_equal(client.generate(PROMPT, **ASKED).pixels, right)
