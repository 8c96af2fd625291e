"""LoRAs swapped through Triton: `python -m benchmarks.loras.served CASE.json WORK_FOLDER`.

retrain   a retrained file published to the running server, drawn before and after, and taken back
load      clients that ask for another set every time, until enough swaps were made: failures, waits, images unlike their set's first
"""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import typer

from benchmarks.loras.files import LORAS, RETRAINED, LoraCase, config_of, lora_file
from benchmarks.loras.parts import PROMPT
from benchmarks.measuring.case import end_orderly_on_terminate, spread
from benchmarks.measuring.results import write_part
from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import load_deployment
from intaglio.engines.card import PeakWatch
from intaglio.errors import IntaglioError
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import open_layers
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.watch import Publisher
from intaglio_client.watch_samples import Samples

SETS: Final = ((), (LORAS[0],), (LORAS[1],), LORAS[:2], (LORAS[2],), (LORAS[0], LORAS[2]))
_STEPS: Final = 4
_LONGEST: Final = 3
"""Times the load's seconds, after which it ends even with too few swaps."""
_DEADLINE: Final = 300


def measure_retraining(server: Server, work: Path) -> dict[str, Any]:
    """A new version of the first LoRA, which is not the server's any more afterwards."""
    folder = server.deployment.build_folder
    store, layers = LoraStore(folder / LORAS_FOLDER), open_layers(read_manifest(folder), folder)
    publisher = Publisher(store, layers, Samples(work / "watched", PROMPT), server.grpc_url, keep=5)
    before = store.current().loras[LORAS[0]]
    found = publisher.publish(LORAS[0], lora_file(work, RETRAINED))
    if found is None:
        raise ValueError("the retrained file was published before")
    store.take_back(LORAS[0], found.sha256, before=before)  # a rollback would reject it for the next run
    return {"file_to_first_image_seconds": found.seconds, "images_drawn": 2}


class Load:
    """What the clients saw."""

    def __init__(self, url: str, case: LoraCase) -> None:
        self._url = url
        self._case = case
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.swap_seconds: list[float] = []
        self.first: dict[tuple[str, ...], str] = {}
        """Digest of the first image of each set."""
        self.unlike: list[str] = []
        """Sets of images that differ from it."""

    def _goes_on(self) -> bool:
        taken = time.monotonic() - self._started
        short = len(self.swap_seconds) < self._case.load_swaps and taken < _LONGEST * self._case.load_seconds
        return taken < self._case.load_seconds or short

    def client(self, number: int) -> None:
        """One client: its sets in turn, all with the same prompt and seed."""
        with Client(self._url, deadline=_DEADLINE) as client:
            turn = number
            while self._goes_on():
                some = SETS[turn % len(SETS)]
                turn += 1
                try:
                    image = client.generate(PROMPT, seed=0, steps=_STEPS, loras=[(one, None) for one in some])
                    digest = hashlib.sha256(image.pixels.tobytes()).hexdigest()
                except IntaglioError as error:
                    with self._lock:
                        self.errors.append(str(error))
                    continue
                with self._lock:
                    self.seconds.append(image.timings["request"])
                    if "lora_swap" in image.timings:
                        self.swap_seconds.append(image.timings["lora_swap"])
                    if self.first.setdefault(some, digest) != digest:
                        self.unlike.append("+".join(some) or "none")

    def result(self) -> dict[str, Any]:
        """The part's figures."""
        return {
            "seconds": time.monotonic() - self._started,
            "clients": self._case.clients,
            "images": len(self.seconds),
            "failed": len(self.errors),
            "errors": self.errors[:5],
            "swaps": len(self.swap_seconds),
            "swap_seconds": spread(self.swap_seconds) if self.swap_seconds else None,
            "request_seconds": spread(self.seconds) | {"most": max(self.seconds)},
            "sets": len(self.first),
            "sets_that_look_alike": len(self.first) - len(set(self.first.values())),
            "unlike_their_first": len(self.unlike),
        }


def measure_load(server: Server, case: LoraCase) -> dict[str, Any]:
    """Every client in a thread of its own."""
    load = Load(server.grpc_url, case)
    with ThreadPoolExecutor(case.clients) as pool:
        for done in [pool.submit(load.client, number) for number in range(case.clients)]:
            done.result()
    return load.result()


def _metric(server: Server, name: str) -> float | None:
    with urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
    return None


def main(case: Path, work: Path) -> None:
    """Measure both; what the first found is kept whatever becomes of the second."""
    told, values = LoraCase.read(case), dict[str, Any]()
    deployment = load_deployment(config_of(work, "swap"))
    with PeakWatch() as peak:
        started = time.perf_counter()
        with Server(deployment, endpoints=Endpoints()) as server:
            with Client(server.grpc_url, deadline=_DEADLINE) as client:
                client.generate(PROMPT, seed=0, steps=_STEPS)
            values["start_to_first_image_seconds"] = time.perf_counter() - started
            values["retrain"] = measure_retraining(server, work)
            write_part(work, "served", values)
            values["load"] = measure_load(server, told)
            write_part(work, "served", values)
            values["load"]["longest_wait_seconds"] = _metric(server, "lora_longest_wait_seconds")
            values["memory_report"] = server.memory_report
    values["card_peak_mib"] = None if peak.taken is None else peak.taken >> 20
    write_part(work, "served", values)


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
