"""`intaglio batch` on the real server: killed, and with a server that restarts, it keeps the same set."""

from __future__ import annotations

import csv
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

from intaglio.contract.config import Deployment
from intaglio.contract.filters import filter_from_entry
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.server import Server
from intaglio_client.batch.manifest import Record, read_manifest
from intaglio_client.filters.chain import judgement_of
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.verdict import Candidate
from miniature import palette, rules

pytestmark = pytest.mark.slow
SPEC: dict[str, Any] = {
    "inputs": {
        "prompt": ["a person waving on a beach", "a person jumping in the snow"],
        "loras": [[], "night:0.8"],
        "seed": {"from": 1, "count": 3},
        "size": "192x256",
        "steps": 3,
        "guidance_scale": 1.0,
    },
    "filters": [{"kind": "blank"}, {"kind": "sharpness", "least": 18}, {"kind": "duplicates"}],
    "limits": {"accepted": 4, "tried": 5, "per": "prompt"},
    "output": {"folder": "out", "apart": True},
}
VOLATILE = ("timings", "server", "drawn")
"""What differs from run to run."""


@dataclass
class Folder:
    """A batch of `SPEC` in a folder of its own."""

    path: Path

    def __post_init__(self) -> None:
        self.path.mkdir()
        (self.path / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))

    def begun(self, *urls: str) -> subprocess.Popen[str]:
        options = [option for url in urls for option in ("--url", url)]
        command = [sys.executable, "-m", "intaglio", "batch", "spec.yaml", *options]
        return subprocess.Popen(
            command, cwd=self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *urls: str) -> None:
        with self.begun(*urls) as process:
            said, _ = process.communicate(timeout=300)
        assert process.returncode in (0, 1), said  # 1: fewer are accepted than it wants

    @property
    def lines(self) -> int:
        path = self.path / "out/manifest.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_lines(self, count: int, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 120
        while self.lines < count:
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)

    @property
    def kept(self) -> tuple[list[Record], dict[str, str]]:
        """The lines without what differs from run to run, and a digest of every picture."""
        records = read_manifest(self.path / "out/manifest.jsonl")
        said = [{key: value for key, value in one.items() if key not in VOLATILE} for one in records]
        found = sorted((self.path / "out").rglob("*.png"))
        names = [path.relative_to(self.path).as_posix() for path in found]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in found]
        return said, dict(zip(names, digests, strict=True))


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("batch") / "undisturbed")
    folder.run(server.grpc_url)
    records, pictures = folder.kept
    assert 8 <= len(records) == len(pictures) < 12
    assert {record["accepted"] for record in records} == {True, False}, "else the test says little"
    return folder


def test_killed_five_times_it_keeps_the_set_of_an_undisturbed_run(
    server: Server, undisturbed: Folder, tmp_path: Path
) -> None:
    folder, chance = Folder(tmp_path / "killed"), random.Random(3)
    for kill in range(5):
        with folder.begun(server.grpc_url) as process:
            folder.wait_for_lines(min(folder.lines + (kill > 0), 7), process)
            time.sleep(chance.uniform(0.0, 0.9))  # the point is random, and before, while or after it draws
            process.kill()
    folder.run(server.grpc_url)
    assert folder.kept == undisturbed.kept


@pytest.mark.long
def test_a_server_that_restarts_meanwhile_changes_nothing(
    miniature: Deployment, undisturbed: Folder, tmp_path: Path
) -> None:
    """It is the only one, so the batch waits for it."""
    endpoints = choose_ports(Endpoints())
    folder = Folder(tmp_path / "restarted")
    with ExitStack() as stack:
        first = Server(miniature, endpoints=endpoints)
        first.__enter__()
        process = stack.enter_context(folder.begun(first.grpc_url))
        try:
            folder.wait_for_lines(2, process)
        finally:
            first.close(immediately=True)  # a fast one would end the set while it finishes what it has
        assert folder.lines < 8, "it was stopped in the middle"
        stack.enter_context(Server(miniature, endpoints=endpoints))
        said, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 1), said
    assert folder.kept == undisturbed.kept


MARA = {"hair": palette.MARA_HAIR, "top": palette.MARA_TOP, "bottom": palette.MARA_BOTTOM}
FILTER: dict[str, Any] = {
    "kind": "palette",
    "colours": {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in MARA.items()},
    "reach": 20,
    "least": 0.008,
}


def rows_of_mara() -> Iterator[list[Any]]:
    """Pictures of Mara and of others in colours that are near to hers, under the same seeds."""
    seed = 0
    for verb in ("dancing", "waving"):
        for place in ("on a beach", "in the snow", "in a room", "in a forest"):
            seed += 1
            hair = ("brown", "blonde", "silver", "black")[seed % 4]
            top = ("green", "red", "blue", "white", "yellow")[seed % 5]
            bottom = ("purple", "black", "yellow", "red")[seed % 4]
            other = f"a person with {hair} hair, in a {top} top and {bottom} trousers, {verb} {place}"
            yield [f"mara {verb} {place}", seed, "mara"]
            yield [other, seed, ""]


def test_the_palette_filter_keeps_the_character(server: Server, tmp_path: Path) -> None:
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "seed", "lora"], *rows_of_mara()])
    spec = {
        "rows": "table.csv",
        "inputs": {"steps": 10, "guidance_scale": 4.0},
        "filters": [FILTER],
        "output": {"folder": "out"},
    }
    path = tmp_path / "mara.yaml"
    path.write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "intaglio", "batch", str(path), "--url", server.grpc_url]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    records = read_manifest(tmp_path / "out/manifest.jsonl")
    accepted = [record for record in records if record["accepted"]]
    assert len(records) == 16
    assert len(accepted) >= 4
    precision = np.mean([bool(record["inputs"].get("loras")) for record in accepted])
    assert precision >= 0.95

    with opened_filters(
        [filter_from_entry(FILTER)]
    ) as filters:  # the manifest's verdicts are those of a recount
        for record in records:
            pixels = np.asarray(PIL.Image.open(tmp_path / "out" / record["file"]).convert("RGB"))
            again = judgement_of(filters, Candidate(pixels, "again"))
            assert (again.accepted, again.scores) == (record["accepted"], record["scores"])
            if record["accepted"]:
                assert min(rules.share_of_colour(pixels, rgb) for rgb in MARA.values()) > 0.0005
