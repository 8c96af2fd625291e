"""`intaglio batch` against servers in this process."""

from __future__ import annotations

import functools
import itertools
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from intaglio.cli import main
from intaglio_client.batch import folder as folders
from intaglio_client.batch.manifest import Record, read_manifest

from ..fake_server import Refusal
from .seed_server import Answer, SeedServer, seed_server

SPEC: dict[str, Any] = {
    "inputs": {"prompt": ["a", "b"], "seed": {"from": 1, "count": 6}},
    "filters": [{"kind": "exposure", "least": 0.4}],
}
VOLATILE = ("timings", "server", "drawn")
LOST = Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def server() -> Iterator[SeedServer]:
    with seed_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio_client.batch.servers._PROBE_SECONDS", (0.01, 0.05))


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command in `tmp_path`; keyword arguments are keys of the specification."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str, **keys: Any) -> int:
        Path("spec.yaml").write_text(yaml.safe_dump({**SPEC, **keys}, sort_keys=False))
        return main(["batch", "spec.yaml", "--out", "out", *options])

    return run


def kept(folder: Path) -> list[Record]:
    """What the manifest says, without times and servers; every picture is the one that it says."""
    records = []
    for record in read_manifest(folder / "manifest.jsonl"):
        assert folders.hashlib.sha256((folder / record["file"]).read_bytes()).hexdigest() == record["sha256"]
        records.append({key: value for key, value in record.items() if key not in VOLATILE})
    return records


def pictures(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_every_picture_is_drawn_judged_and_kept_once(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--url", server.url, "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["complete"], said["tried"], said["accepted"], said["drawn"]) == (True, 12, 6, 12)
    assert said["rejected"] == {"exposure": 6}
    assert said["servers"] == {server.url: 12}
    records = kept(tmp_path / "out")
    assert [record["index"] for record in records] == list(range(12))
    assert [record["accepted"] for record in records] == [True, False] * 6, "even seeds are dark"
    assert pictures(tmp_path / "out") == {record["file"] for record in records}
    assert {request["priority"] for request in server.drawn} == {"batch"}
    assert "12 pictures, 6 accepted" in (tmp_path / "out/sheet.html").read_text()

    assert batch("--url", server.url, "--quiet") == 0
    assert capfd.readouterr().out == "out/manifest.jsonl\n"
    assert len(server.drawn) == 12, "nothing is drawn again"
    assert kept(tmp_path / "out") == records


def test_servers_share_the_pictures_and_what_a_lost_one_had_is_redone(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    """One server is lost after its third picture, another one only for a moment."""
    assert batch("--url", server.url, "--quiet") == 0
    alone = kept(tmp_path / "out")
    for name in ("out", "spec.yaml"):
        (tmp_path / name).rename(tmp_path / f"{name}-alone")
    dying = SeedServer(
        refused=lambda number, inputs: LOST if number >= 3 else None,
        is_ready=lambda: len(dying.requests) < 4,
    )
    stumbling = SeedServer(refused=lambda number, inputs: LOST if number == 1 else None)
    with seed_server(dying) as first, seed_server(stumbling) as second:
        assert batch("--url", first.url, "--url", second.url, "--quiet") == 0
        assert kept(tmp_path / "out") == alone
        assert len(second.drawn) >= 9
        assert {record["server"] for record in read_manifest(tmp_path / "out/manifest.jsonl")} <= {
            first.url,
            second.url,
        }


@pytest.mark.parametrize("in_flight", ["1", "7"])
def test_it_ends_at_the_same_picture_however_many_are_drawn_at_a_time(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, in_flight: str
) -> None:
    assert batch("--url", server.url, "--in-flight", in_flight, limits={"accepted": 3}) == 0
    assert [record["index"] for record in kept(tmp_path / "out")] == [0, 1, 2, 3, 4]
    assert len(pictures(tmp_path / "out")) == 5, "what was drawn beyond that is dropped"


def test_each_prompt_gets_what_it_needs(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    assert batch("--url", server.url, limits={"accepted": 1, "tried": 2, "per": "prompt"}) == 0
    assert [record["index"] for record in kept(tmp_path / "out")] == [0, 6]


def test_too_few_accepted_pictures_are_a_failure_that_says_why(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dark = [{"kind": "exposure", "least": 0.99, "name": "bright"}]
    limits = {"accepted": 2, "tried": 4}
    assert batch("--url", server.url, filters=dark, limits=limits) == 1
    assert "0 of 2 are accepted after 4 pictures (bright rejected 4)" in capfd.readouterr().err
    assert [record["reason"][:6] for record in kept(tmp_path / "out")] == ["bright"] * 4
    assert batch("--url", "127.0.0.1:9", "--new-spec", limits=limits) == 0, "nothing has to be drawn for it"
    assert [record["accepted"] for record in kept(tmp_path / "out")] == [True, False, True]


def test_another_specification_is_refused_by_name_and_taken_over_on_demand(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--url", server.url, limits={"tried": 4}) == 0
    before = kept(tmp_path / "out")
    changed = {
        "filters": [{"kind": "exposure", "least": 0.1}],
        "inputs": {"prompt": ["a", "c"], "seed": {"from": 2, "count": 3}},
    }
    capfd.readouterr()
    assert batch("--url", server.url, **changed) == 1
    said = capfd.readouterr().err
    for text in (
        'inputs.prompt was ["a", "b"] and is ["a", "c"]',
        "limits.tried was 4 and is null",
        "--new-spec",
    ):
        assert text in said
    assert kept(tmp_path / "out") == before
    server.drawn.clear()
    assert batch("--url", server.url, "--new-spec", "--json", **changed) == 0
    assert json.loads(capfd.readouterr().out)["drawn"] == 3
    assert [request["prompt"] for request in server.drawn] == ["c"] * 3, "the others are there"
    records = kept(tmp_path / "out")
    assert [(record["inputs"]["seed"], record["accepted"]) for record in records[:3]] == [
        (2, True),
        (3, True),
        (4, True),
    ]
    assert pictures(tmp_path / "out/before") == {f"{before[0]['item']}.png"}, "seed 1 is not asked for"


def test_a_picture_that_is_asked_for_twice_or_is_damaged_is_drawn_where_no_earlier_one_is_left(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = {"prompt": "a", "seed": [1, 1, 2, 2, 3]}
    assert batch("--url", server.url, inputs=inputs) == 0
    before = kept(tmp_path / "out")
    (tmp_path / "out" / before[4]["file"]).write_bytes(b"damaged")
    server.drawn.clear()
    capfd.readouterr()
    assert batch("--url", server.url, "--new-spec", "--json", inputs=inputs, filters=[]) == 0
    assert [one["seed"] for one in server.drawn] == [1, 2, 3]
    after = kept(tmp_path / "out")
    assert [one["sha256"] for one in after] == [one["sha256"] for one in before]


def test_a_stop_ends_a_run_that_only_judges_earlier_pictures(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch("--url", server.url) == 0
    write = folders.BatchFolder.write

    def stopped_after_one(*arguments: Any) -> None:
        write(*arguments)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(folders.BatchFolder, "write", stopped_after_one)
        assert batch("--url", server.url, "--new-spec", filters=[]) == 143
    assert len(kept(tmp_path / "out")) == 1
    server.drawn.clear()
    assert batch("--url", server.url, filters=[]) == 0
    assert (len(kept(tmp_path / "out")), server.drawn) == (12, [])


def test_a_picture_that_was_lost_is_drawn_again_if_it_is_the_same(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--url", server.url) == 0
    before = kept(tmp_path / "out")
    (tmp_path / "out" / before[3]["file"]).unlink()
    server.drawn.clear()
    assert batch("--url", server.url) == 0
    assert [(one["prompt"], one["seed"]) for one in server.drawn] == [("a", 4)]
    assert kept(tmp_path / "out") == before
    (tmp_path / "out" / before[3]["file"]).unlink()
    server.build = "b2"
    assert batch("--url", server.url) == 1
    assert "was lost, and the servers draw another picture now" in capfd.readouterr().err


@pytest.mark.parametrize(
    "ending",
    [
        (
            Refusal(grpc.StatusCode.INVALID_ARGUMENT, "pose: 'x' is unknown; allowed: y"),
            2,
            "picture 2: pose: 'x'",
        ),
        (Refusal(grpc.StatusCode.INTERNAL, "out of luck"), 1, "picture 2 failed 3 times"),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "loras: cannot apply x: no"), 75, "picture 2 failed 3 times"),
        (LOST, 75, "picture 2 failed 10 times"),
    ],
)
def test_a_picture_that_no_server_draws_ends_the_batch_and_keeps_the_others(
    batch: Callable[..., int],
    server: SeedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ending: tuple[Refusal, int, str],
) -> None:
    refusal, code, says = ending
    wrong = True

    def refused(number: int, inputs: dict[str, Any]) -> Answer:
        return refusal if wrong and inputs["seed"] == 3 else None

    server.refused = refused
    assert batch("--url", server.url) == code
    assert says in capfd.readouterr().err
    assert [record["index"] for record in kept(tmp_path / "out")] == [0, 1]
    wrong = False
    assert batch("--url", server.url) == 0
    assert len(kept(tmp_path / "out")) == 12


def test_a_server_that_dies_is_no_fault_of_the_picture(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    """The first picture fails more often than it may on a server that lives."""
    asked = itertools.count()
    server.is_ready = lambda: bool(next(asked) % 2)  # not at the failure, but when it is asked again
    gone = Refusal(grpc.StatusCode.INTERNAL, "the stub is gone")
    server.refused = lambda number, inputs: gone if number < 5 else None
    assert batch("--url", server.url, "--in-flight", "1") == 0
    assert len(kept(tmp_path / "out")) == 12


def test_a_full_queue_is_tried_again(batch: Callable[..., int], server: SeedServer, tmp_path: Path) -> None:
    full = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size; try again in 0.01 s")
    server.refused = lambda number, inputs: full if number % 2 else None
    assert batch("--url", server.url) == 0
    assert len(kept(tmp_path / "out")) == 12


def test_without_a_server_it_stops_after_a_while(
    batch: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--url", "127.0.0.1:9", "--wait", "0.1") == 75
    said = capfd.readouterr().err
    assert "no server for 0.1 s" in said
    assert "127.0.0.1:9" in said
    assert kept_or_none(tmp_path) == []


def kept_or_none(folder: Path) -> list[Record]:
    path = folder / "out/manifest.jsonl"
    return kept(folder / "out") if path.exists() else []


def test_a_server_of_another_build_is_refused_unless_it_is_allowed(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--url", server.url, limits={"tried": 4}) == 0
    with seed_server(SeedServer(build="b2")) as other:
        assert batch("--url", other.url, "--new-spec") == 1
        assert "another build than the one that made the original" in capfd.readouterr().err
        assert batch("--url", other.url, same_build=False) == 0
    assert {record["parameters"]["model"]["build"] for record in kept(tmp_path / "out")} == {"b1", "b2"}


def test_accepted_and_rejected_apart_under_names_of_inputs(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    inputs = {"prompt": "Ä <b>/../c", "seed": [1, 2]}
    assert (
        batch("--url", server.url, "--apart", inputs=inputs, output={"names": "{prompt}-{index}-{seed}"}) == 0
    )
    assert pictures(tmp_path / "out") == {"accepted/b-..-c-000000-1.png", "rejected/b-..-c-000001-2.png"}
    for format_ in ("webp", "jpeg"):
        assert batch("--url", server.url, "--out", format_, inputs=inputs, output={"format": format_}) == 0
        assert sorted(path.name for path in (tmp_path / format_).glob(f"*.{format_}")) == [
            f"000000.{format_}",
            f"000001.{format_}",
        ]


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    batch: Callable[..., int],
    server: SeedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = folders.write_whole

    def full(path: Path, data: bytes) -> None:
        if path.name == "000003.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(folders, "write_whole", full)
        assert batch("--url", server.url) == 1
    said = capfd.readouterr().err
    assert "000003.png: the disk is full; what was kept until then stays" in said
    assert len(kept(tmp_path / "out")) == 3
    assert batch("--url", server.url) == 0
    assert len(kept(tmp_path / "out")) == 12


def command(url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "intaglio", "batch", "spec.yaml", "--out", "out", "--url", url, *options]


def test_a_system_that_refuses_larger_files_is_named(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    """The manifest reaches the limit in the middle of a line, the real way."""
    assert batch("--dry-run") == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    done = subprocess.run(
        command(server.url), preexec_fn=limit, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "File too large; what was kept until then stays" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < len(kept(tmp_path / "out")) < 12
    assert batch("--url", server.url) == 0
    assert len(kept(tmp_path / "out")) == 12


def test_a_folder_that_cannot_be_made_is_named(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert batch("--url", server.url, "--out", "file/out") == 1
    assert "file/out" in capfd.readouterr().err
    assert server.requests == []


def lines(folder: Path) -> int:
    path = folder / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_killed_again_and_again_it_ends_with_the_set_of_an_undisturbed_run(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path
) -> None:
    spec = {
        "inputs": {"prompt": ["a", "b"], "seed": {"from": 1, "count": 30}},
        "filters": [*SPEC["filters"], {"kind": "duplicates"}],
        "limits": {"accepted": 25, "tried": 55},
    }
    assert batch("--url", server.url, **spec) == 0
    (tmp_path / "out").rename(tmp_path / "undisturbed")
    permits = server.permits = threading.Semaphore(0)

    def reached(goal: int) -> bool:
        """Whether the manifest has so many lines; until then one more picture may be drawn at a time."""
        if permits.acquire(blocking=False) or server.waiting:
            permits.release()
        return lines(tmp_path / "out") >= goal

    for count in (1, 2, 1, 3, 1):
        goal = lines(tmp_path / "out") + count
        with subprocess.Popen(command(server.url), text=True, stderr=subprocess.PIPE) as process:
            wait_until(functools.partial(reached, goal), process)
            process.kill()
        wait_until(lambda: server.waiting == 0)
        with (tmp_path / "out/manifest.jsonl").open("ab") as file:
            file.write(b'{"index": 99, "torn')
    server.permits = None
    assert subprocess.run(command(server.url), capture_output=True, timeout=60, check=False).returncode == 0
    assert len(kept(tmp_path / "undisturbed")) == 49, "it ends with the 25th that is accepted"
    assert kept(tmp_path / "out") == kept(tmp_path / "undisturbed")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "undisturbed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_on_the_server_and_keeps_what_is_done(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    assert batch("--url", server.url, "--dry-run") == 0
    server.refused = lambda number, inputs: server.gate.clear() if number == 3 else None
    with subprocess.Popen(command(server.url), text=True, stderr=subprocess.PIPE) as process:
        wait_until(lambda: lines(tmp_path / "out") >= 2 and len(server.requests) >= 4, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "what was being drawn is cancelled on the servers" in said
    wait_until(lambda: server.cancelled >= 1)
    assert (tmp_path / "out/sheet.html").is_file()
    server.refused = lambda number, inputs: None
    server.gate.set()
    assert batch("--url", server.url) == 0
    assert len(kept(tmp_path / "out")) == 12


def test_two_runs_in_one_folder_exclude_each_other(
    batch: Callable[..., int], server: SeedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert batch("--dry-run") == 0
    server.gate.clear()
    with subprocess.Popen(command(server.url), text=True, stderr=subprocess.PIPE) as process:
        wait_until(lambda: len(server.requests) >= 2, process)
        assert batch("--url", server.url) == 75
        assert "another intaglio batch works in it" in capfd.readouterr().err
        server.gate.set()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_dry_run_asks_nobody(
    batch: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert batch("--dry-run", "--json", "--url", "127.0.0.1:9") == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["pictures"], said["lora_sets"], said["first"]) == (12, 1, {"prompt": "a", "seed": 1})
    assert not (tmp_path / "out").exists()


def test_bad_specifications_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: no such file" in capfd.readouterr().err
