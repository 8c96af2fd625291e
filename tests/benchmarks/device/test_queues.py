"""Queues of short commands in the place of measurements; cards are only numbers here."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device import queues
from benchmarks.device.queues import ROOT, TABLE, Queue, Step, main, poll, read_queues, run_queue, start
from benchmarks.loras import run as loras
from benchmarks.measuring.parts import Part, wanted_parts
from benchmarks.speed import run as speed


def shell(script: str, name: str = "one", **values: Any) -> Step:
    """A step that runs `script`, whose $1 are the seconds that it has."""
    values = {"tree": "a", "least_seconds": 1} | values
    return Step(name, ("bash", "-c", script, "bash", "{seconds}"), **values)


def run(folder: Path, *steps: Step, seconds: float = 60) -> Path:
    """Run the queue of card 1 in a copy without files; its folder."""
    for step in steps:
        (folder / "trees" / step.tree).mkdir(parents=True, exist_ok=True)
    run_queue(folder, Queue("own", 1, steps), time.time() + seconds)
    return folder / "own"


def state(own: Path, name: str) -> Any:
    return json.loads((own / f"{name}.json").read_text())["state"]


def test_a_step_gets_its_card_its_seconds_its_tree_and_a_folder_for_results(tmp_path: Path) -> None:
    said = shell('echo "$CUDA_VISIBLE_DEVICES $1 $(pwd)" > "$OUT/said"', most_seconds=7)
    own = run(tmp_path, said)
    assert (own / "out/one/said").read_text().split() == ["1", "7", str(tmp_path / "trees/a")]
    assert state(own, "one") == "done"


def test_a_failed_step_ends_nothing_and_alone_runs_again(tmp_path: Path) -> None:
    count = 'echo x >> "$OUT/runs"; '
    steps = (shell(f"{count} echo why; exit 3"), shell(count, "two"))
    run(tmp_path, *steps)
    own = run(tmp_path, *steps)
    assert [(own / f"out/{name}/runs").read_text().count("x") for name in ("one", "two")] == [2, 1]
    assert (state(own, "one"), state(own, "two")) == ("ended with 3", "done")
    assert (own / "one.log").read_text() == "why\nwhy\n"


def test_a_step_without_time_is_left_out_and_a_shorter_one_runs(tmp_path: Path) -> None:
    own = run(tmp_path, shell("exit 9", least_seconds=500), shell("true", "two"))
    assert state(own, "one").startswith("not begun, ")
    assert state(own, "two") == "done"


def test_a_step_that_outstays_its_time_ends_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.device.queues._GRACE_SECONDS", 1)
    own = run(tmp_path, shell('sleep 600 & echo $! > "$OUT/child"; wait', most_seconds=1))
    assert state(own, "one") == "ended with -15"
    assert not runs(int((own / "out/one/child").read_text()))


def runs(process: int) -> bool:
    asked = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("trap '' TERM; {child} wait", "ended with -9"),
        ("{child} trap 'exit 3' TERM; wait", "ended with 3"),
        ("{child} exit 0", "done"),
    ],
    ids=["it ignores the request", "its child ignores the request", "it leaves a child"],
)
def test_nothing_of_a_step_lives_on_beside_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
) -> None:
    monkeypatch.setattr("benchmarks.device.queues._GRACE_SECONDS", 2)
    stubborn = "trap '' TERM; touch $OUT/ready; for i in {1..300}; do sleep 0.2; done"
    child = f'bash -c "{stubborn}" & echo $! > "$OUT/child";'
    child += ' until [ -e "$OUT/ready" ]; do sleep 0.05; done;'
    began = time.monotonic()
    own = run(tmp_path, shell(script.format(child=child), most_seconds=2))
    assert not runs(int((own / "out/one/child").read_text()))
    assert state(own, "one") == expected
    assert time.monotonic() - began < 30


def test_a_step_that_cannot_be_started_says_so_and_the_next_one_runs(tmp_path: Path) -> None:
    own = run(tmp_path, Step("one", ("no-such-program", "{seconds}"), "a", 1), shell("true", "two"))
    assert state(own, "one").startswith("failed: ")
    assert "no-such-program" in state(own, "one")
    assert state(own, "two") == "done"


def test_a_step_whose_queue_was_killed_does_not_look_as_if_it_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.toml", "sleep 600")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one0.json").write_text('{"state": "runs, has 7 s"}')
    assert not poll(tmp_path, table, tmp_path / "out")
    assert "  one0: ended with its queue\n" in capsys.readouterr().out


def test_a_step_must_be_told_its_time() -> None:
    with pytest.raises(ValueError, match="step one: its command is not told"):
        Step("one", ("true",), tree="a", least_seconds=1)


def write_table(path: Path, *scripts: str, after: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Queues `a`, `b` with one step each, `one0` and `one1`, in copies of their own."""
    text = ""
    for card, script in enumerate(scripts):
        command = json.dumps(["bash", "-c", script, "bash", "{seconds}"])
        text += f'[[queue]]\nname = "{"ab"[card]}"\ncard = {card}\n'
        text += f'[[queue.step]]\nname = "one{card}"\ncommand = {command}\n'
        text += f'tree = "{"ab"[card]}"\nleast_seconds = 1\n'
        if after is not None:
            text += f"after = {json.dumps(after.get(f'one{card}', []))}\n"
    path.write_text(text)
    return path


def test_started_queues_run_side_by_side_in_their_own_trees_and_outlive_their_starter(tmp_path: Path) -> None:
    """Each waits for the other's file, so one after the other they would not end."""
    meet = (
        'touch "{0}/$CUDA_VISIBLE_DEVICES"; until [ -e "{0}/0" ] && [ -e "{0}/1" ]; do sleep 0.1; done; pwd'
    )
    meet = meet.format(tmp_path) + '; test -f benchmarks/device/run.sh; echo r > "$OUT/result.json"'
    table = write_table(tmp_path / "table.toml", meet, meet)
    folder, out = tmp_path / "queues", tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.device.queues", "--folder", folder, "--table", table]
    subprocess.run([*command, "start", "60"], check=True, cwd=ROOT, timeout=60)
    assert poll(folder, table, out, wait=60)
    for card, name in ((0, "a"), (1, "b")):
        assert (folder / f"{name}/one{card}.log").read_text().strip() == str(folder / "trees" / name)
        assert f"{name}/one{card}.log" in names(out / f"{name}-logs.tar.gz")
    assert sorted(names(out / "results.tar.gz")) == [
        "a/one0.json",
        "a/out/one0/result.json",
        "b/one1.json",
        "b/out/one1/result.json",
    ]


def test_a_step_waits_for_steps_of_other_queues_however_they_end(tmp_path: Path) -> None:
    first = f'sleep 2; echo first >> "{tmp_path}/order"; exit 3'
    table = write_table(
        tmp_path / "table.toml", first, f'echo then >> "{tmp_path}/order"', after={"one1": ["one0"]}
    )
    start(tmp_path / "queues", table, 60)
    assert not poll(tmp_path / "queues", table, tmp_path / "out", wait=60), "the first one failed"
    assert (tmp_path / "order").read_text().split() == ["first", "then"]
    start(tmp_path / "queues", table, 60)
    poll(tmp_path / "queues", table, tmp_path / "out", wait=60)
    assert (tmp_path / "order").read_text().split() == ["first", "then", "first"], (
        "what was done is not again"
    )


def test_how_a_step_ended_before_is_not_taken_for_this_run(tmp_path: Path) -> None:
    first = f'sleep 2; echo first >> "{tmp_path}/order"'
    then = f'echo then >> "{tmp_path}/order"'
    table = write_table(tmp_path / "table.toml", first, then, after={"one1": ["one0"]})
    (tmp_path / "queues/a").mkdir(parents=True)
    (tmp_path / "queues/a/one0.json").write_text('{"state": "ended with 1", "code": 1}')
    start(tmp_path / "queues", table, 60)
    assert poll(tmp_path / "queues", table, tmp_path / "out", wait=60)
    assert (tmp_path / "order").read_text().split() == ["first", "then"]


def test_a_step_that_waited_too_long_is_not_begun(tmp_path: Path) -> None:
    """It would share the card with what it waits for."""
    table = write_table(tmp_path / "table.toml", "sleep 6", "true", after={"one1": ["one0"]})
    start(tmp_path / "queues", table, 4)
    poll(tmp_path / "queues", table, tmp_path / "out", wait=60)
    assert state(tmp_path / "queues/b", "one1").startswith("not begun, ")


def test_a_step_whose_queue_was_killed_is_still_waited_for(tmp_path: Path) -> None:
    """It runs in a session of its own, so it lives on."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as left:
        (tmp_path / "a").mkdir()
        kept = {"state": "runs, has 7 s", "group": left.pid}
        (tmp_path / "a/one0.json").write_text(json.dumps(kept))
        step = shell("true", "one0")
        assert queues._is_ahead(tmp_path / "a", step)
        left.kill()
    assert not queues._is_ahead(tmp_path / "a", step)


def test_what_is_measured_waits_for_everything_else_on_its_card() -> None:
    """Whatever is done already: a later start leaves that out."""
    table = read_queues(TABLE)
    together = {
        "suite_beside_builds",
        *(step.name for queue in table for step in queue.steps if "build" in step.name),
    }
    for queue in table:
        before: set[str] = set()
        for step in queue.steps:
            before.add(step.name)
            if step.name not in together:
                lacking = together - before - set(step.after)
                assert lacking <= ({"suite_beside_builds"} if queue.name == "suite" else set()), step.name
    measured = [(queue, step) for queue in table for step in queue.steps if step.name not in together]
    for queue, step in measured:
        for other, second in measured:
            if other.name != queue.name:
                assert waits_for(table, step.name, second.name) or waits_for(table, second.name, step.name)


def waits_for(table: Sequence[Queue], later: str, earlier: str) -> bool:
    """Directly: what lies between them may be done."""
    (queue, step) = next((queue, one) for queue in table for one in queue.steps if one.name == later)
    before = queue.steps[: queue.steps.index(step) + 1]
    return any(earlier in one.after for one in before)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"one0": ["one2"]}, "step one0 waits for one2: no such step"),
        ({"one0": ["one1"], "one1": ["one0"]}, "steps wait for each other: one0, one1"),
    ],
    ids=["unknown", "a circle"],
)
def test_a_step_that_would_wait_for_ever_is_refused(
    tmp_path: Path, after: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read_queues(write_table(tmp_path / "table.toml", "true", "true", after=after))


def names(archive: Path) -> list[str]:
    """What it holds; every file of it can be read."""
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            file = packed.extractfile(member)
            assert file is not None
            assert len(file.read()) == member.size
        return packed.getnames()


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.05)


def test_files_that_change_while_they_are_packed_hold_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that runs writes, replaces and removes its files all the time."""
    monkeypatch.setattr("benchmarks.device.queues._GRACE_SECONDS", 4)
    write = 'cd "$OUT"; head -c 3000000 /dev/zero > kept.json; mkdir -p deep; touch started; while :; do'
    write += " head -c 3000000 /dev/zero > big.log; echo > big.log; echo > a.json.new; mv a.json.new a.json;"
    write += " rm a.json; echo > deep/x.tmp; rm -r deep; mkdir deep; done"
    table, folder, out = write_table(tmp_path / "table.toml", write), tmp_path / "queues", tmp_path / "out"
    (folder / "trees/a").mkdir(parents=True)
    (queue,) = read_queues(table)
    runner = threading.Thread(target=run_queue, args=(folder, queue, time.time() + 2))
    runner.start()
    try:
        until((folder / "a/out/one0/started").is_file)
        for _ in range(20):
            poll(folder, table, out)
            assert "a/out/one0/kept.json" in names(out / "results.tar.gz")
            packed = [*names(out / "results.tar.gz"), *names(out / "a-logs.tar.gz")]
            assert not [name for name in packed if name.endswith((".new", ".tmp"))]
    finally:
        runner.join(90)


def test_a_file_that_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = ready_table(tmp_path, 'echo 1 > "$OUT/a.json"; echo 2 > "$OUT/b.json"')
    read = Path.read_bytes

    def vanishing(path: Path) -> bytes:
        if path.name == "a.json":
            path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    assert poll(tmp_path, table, tmp_path / "out")
    assert names(tmp_path / "out/results.tar.gz") == ["a/out/one0/b.json", "a/one0.json"]
    assert "a.json" in capsys.readouterr().out


def ready_table(folder: Path, *scripts: str) -> Path:
    """A table whose queues have run in `folder`."""
    table = write_table(folder / "table.toml", *scripts)
    for queue in read_queues(table):
        (folder / "trees" / queue.steps[0].tree).mkdir(parents=True)
        run_queue(folder, queue, time.time() + 60)
    return table


def test_an_archive_that_cannot_be_written_keeps_no_other_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = ready_table(tmp_path, "true", "true"), tmp_path / "out"
    (out / "a-logs.tar.gz").mkdir(parents=True)
    assert not poll(tmp_path, table, out), "the caller must ask again"
    assert "a-logs.tar.gz was not written: " in capsys.readouterr().out
    assert names(out / "b-logs.tar.gz") == ["b/one1.log"]
    assert names(out / "results.tar.gz") == ["a/one0.json", "b/one1.json"]


def test_large_logs_hold_no_results_back(tmp_path: Path) -> None:
    table = ready_table(tmp_path, 'head -c 2000000 /dev/urandom > "$OUT/logs.tar.gz"; echo 1 > "$OUT/r.json"')
    poll(tmp_path, table, tmp_path)
    assert (tmp_path / "results.tar.gz").stat().st_size < 1000
    assert (tmp_path / "a-logs.tar.gz").stat().st_size > 2000000


def test_what_is_too_large_to_come_back_is_not_taken_for_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "_SENT_BYTES", 1000)
    table = ready_table(tmp_path, 'head -c 2000 /dev/urandom > "$OUT/logs.tar.gz"')
    assert not poll(tmp_path, table, tmp_path / "out")


def test_all_that_comes_back_at_once_is_few_files(tmp_path: Path) -> None:
    """A host of the kind that these scripts are for sends eight files at most."""
    poll(tmp_path, TABLE, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) <= 8


def test_copies_of_the_tree_hold_no_caches_and_take_no_time_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for file in ("a/__pycache__/b.pyc", ".mypy_cache/c", "a/.ruff_cache/d", "a/kept", "build/e", "a/build/f"):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).touch()
    (tree / "benchmarks").symlink_to(ROOT / "benchmarks")  # the queue runs in the copy
    copy = queues._copy_tree

    def slowly(folder: Path) -> None:
        copy(folder)
        time.sleep(4)

    monkeypatch.setattr(queues, "ROOT", tree)
    monkeypatch.setattr(queues, "_copy_tree", slowly)
    table = write_table(tmp_path / "table.toml", 'echo "$1"')
    folder = tmp_path / "queues"
    start(folder, table, 60)
    assert poll(folder, table, tmp_path, wait=60)
    copied = {
        str(path.relative_to(folder / "trees/a"))
        for path in (folder / "trees/a").rglob("*")
        if path.is_file()
    }
    assert copied == {"a/kept", "a/build/f"}
    assert int((folder / "a/one0.log").read_text()) >= 57


def test_a_running_queue_is_not_started_twice_and_another_copy_keeps_its_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.toml", f'until [ -e "{tmp_path}/go" ]; do sleep 0.1; done')
    folder = tmp_path / "queues"
    start(folder, table, 60)
    until((folder / "a/one0.json").is_file)
    with pytest.raises(BlockingIOError):
        start(folder, table, 60)
    assert not poll(folder, table, tmp_path)
    assert "a: runs\n  one0: runs, has " in capsys.readouterr().out
    (folder / "trees/a/build").mkdir()
    (folder / "trees/a/tests/of_before").mkdir()
    (tmp_path / "go").touch()
    assert poll(folder, table, tmp_path, wait=60)
    start(folder, table, 60)
    assert poll(folder, table, tmp_path, wait=60)
    assert (folder / "trees/a/build").is_dir()
    assert not (folder / "trees/a/tests/of_before").exists()


def test_every_step_of_the_table_is_a_script_of_its_folder(tmp_path: Path) -> None:
    queues = read_queues(TABLE)
    for queue in queues:
        for step in queue.steps:
            assert (ROOT / step.command[1]).is_file(), step
    assert {queue.card for queue in queues} == {0}
    assert main(["--folder", str(tmp_path), "poll"]) == 1, "nothing is done"


@pytest.mark.parametrize(
    ("script", "parts"), [("run.sh", speed.PARTS), ("run_lora.sh", loras.PARTS)], ids=["speed", "loras"]
)
def test_a_step_begins_only_where_each_of_its_parts_fits(script: str, parts: tuple[Part, ...]) -> None:
    """Setting up takes about 45 s, and the scripts keep 15 s for their results."""
    steps = [
        step
        for queue in read_queues(TABLE)
        for step in queue.steps
        if step.command[1] == f"benchmarks/device/{script}"
    ]
    assert steps
    for step in steps:
        asked = step.command[step.command.index("--parts") + 1] if "--parts" in step.command else "all"
        longest = max(part.least_seconds for part in wanted_parts(parts, asked))
        assert step.least_seconds >= longest + 45 + 15, step.name
