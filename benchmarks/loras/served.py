"""LoRAs swapped through Triton: `python -m benchmarks.loras.served CASE.json WORK_FOLDER`.

retrain   a retrained file is published to the running server, drawn before and after, and rolled back
load      clients ask for another set every time, until enough swaps were made: failures, waits, and images
          that differ from the first one of their set
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

from benchmarks.loras.drawing import PROMPT
from benchmarks.loras.files import LORAS, RETRAINED, LoraCase, config_of, lora_file
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import spread
from benchmarks.measuring.watches import CARD, peak_mib
from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import load_deployment
from intaglio.engines.card import PeakWatch
from intaglio.errors import IntaglioError
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import open_layers
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import NO_RETRIES, Client
from intaglio_client.watch import Publisher
from intaglio_client.watch_samples import Samples

__all__ = ["Load", "measure_load", "measure_retraining"]

SETS: Final = ((), (LORAS[0],), (LORAS[1],), LORAS[:2], (LORAS[2],), (LORAS[0], LORAS[2]))
_STEPS: Final = 4
_LONGEST: Final = 3
"""After this many times its seconds the load ends, even with too few swaps."""
_DEADLINE: Final = 300
"""Seconds that one image may take."""


def measure_retraining(server: Server, work: Path) -> dict[str, Any]:
    """Publish a new version of the first LoRA, then roll it back."""
    folder = server.deployment.build_folder
    store = LoraStore(folder / LORAS_FOLDER)
    layers = open_layers(read_manifest(folder), folder)
    samples = Samples(work / "watched", PROMPT)
    publisher = Publisher(store, layers, samples, server.grpc_url, keep=5)
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
        """The set of every image that differs from its set's first one."""

    def _goes_on(self) -> bool:
        taken = time.monotonic() - self._started
        if taken < self._case.load_seconds:
            return True
        too_few = len(self.swap_seconds) < self._case.load_swaps
        return too_few and taken < _LONGEST * self._case.load_seconds

    def client(self, number: int) -> None:
        """One client: its sets in turn, all with the same prompt and seed."""
        with Client(self._url, deadline=_DEADLINE, retries=NO_RETRIES) as client:
            turn = number
            while self._goes_on():
                self._ask(client, SETS[turn % len(SETS)])
                turn += 1

    def _ask(self, client: Client, loras: tuple[str, ...]) -> None:
        try:
            image = client.generate(PROMPT, seed=0, steps=_STEPS, loras=[(one, None) for one in loras])
        except IntaglioError as error:
            with self._lock:
                self.errors.append(str(error))
            return
        digest = hashlib.sha256(image.pixels.tobytes()).hexdigest()
        with self._lock:
            self.seconds.append(image.timings["request"])
            if "lora_swap" in image.timings:
                self.swap_seconds.append(image.timings["lora_swap"])
            if self.first.setdefault(loras, digest) != digest:
                self.unlike.append("+".join(loras) or "none")

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
        clients = [pool.submit(load.client, number) for number in range(case.clients)]
        for client in clients:
            client.result()
    return load.result()


def _metric(server: Server, name: str) -> float | None:
    with urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
    return None


def main(case: Path, work: Path) -> None:
    """Measure both. What the first found is kept even where the second fails."""
    told = LoraCase.read(case)
    values: dict[str, Any] = {}
    deployment = load_deployment(config_of(work, "swap"))
    with PeakWatch(CARD) as peak:
        started = time.perf_counter()
        with Server(deployment, endpoints=Endpoints()) as server:
            with Client(server.grpc_url, deadline=_DEADLINE, retries=NO_RETRIES) as client:
                client.generate(PROMPT, seed=0, steps=_STEPS)
            values["start_to_first_image_seconds"] = time.perf_counter() - started
            values["retrain"] = measure_retraining(server, work)
            write_part(work, "served", values)
            values["load"] = measure_load(server, told)
            write_part(work, "served", values)
            values["load"]["longest_wait_seconds"] = _metric(server, "intaglio_queue_longest_wait_seconds")
            values["memory_report"] = server.memory_report
    values["card_peak_mib"] = peak_mib(peak)
    write_part(work, "served", values)


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
