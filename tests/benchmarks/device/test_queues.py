"""Queues of short commands in the place of measurements; the cards are only numbers here."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device.queues import ROOT, TABLE, Queue, Step, main, poll, read_queues, run_queue, start


def shell(script: str, name: str = "one", **values: Any) -> Step:
    """A step that runs `script`, whose $1 are the seconds that it has."""
    values = {"tree": "a", "least_seconds": 1} | values
    return Step(name, ("bash", "-c", script, "bash", "{seconds}"), **values)


def run(folder: Path, *steps: Step, seconds: float = 60) -> Path:
    """Run the queue of card 1 in a copy without files; its folder."""
    for step in steps:
        (folder / "trees" / step.tree).mkdir(parents=True, exist_ok=True)
    run_queue(folder, Queue(1, steps), time.time() + seconds)
    return folder / "card1"


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
    child = (own / "out/one/child").read_text().strip()
    asked = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False)
    assert asked.stdout.strip() in ("", "Z")


def test_a_step_must_be_told_its_time() -> None:
    with pytest.raises(ValueError, match="step one: its command is not told"):
        Step("one", ("true",), tree="a", least_seconds=1)


def write_table(path: Path, *scripts: str) -> Path:
    """A queue for each script, on a card of its own."""
    text = ""
    for card, script in enumerate(scripts):
        command = json.dumps(["bash", "-c", script, "bash", "{seconds}"])
        text += f'[[queue]]\ncard = {card}\n[[queue.step]]\nname = "one"\ncommand = {command}\n'
        text += f'tree = "{"ab"[card]}"\nleast_seconds = 1\n'
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
    for card, tree in ((0, "a"), (1, "b")):
        assert (folder / f"card{card}/one.log").read_text().strip() == str(folder / "trees" / tree)
        with tarfile.open(out / f"card{card}.tar.gz") as packed:
            assert f"card{card}/out/one/result.json" in packed.getnames()


def test_a_running_queue_is_not_started_twice_and_another_copy_keeps_its_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.toml", f'until [ -e "{tmp_path}/go" ]; do sleep 0.1; done')
    folder = tmp_path / "queues"
    start(folder, table, 60)
    while not (folder / "card0/one.json").is_file():
        time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        start(folder, table, 60)
    assert not poll(folder, table, tmp_path)
    assert "card0: runs\n  one: runs, has " in capsys.readouterr().out
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
    assert [queue.card for queue in queues] == [0, 1]
    assert main(["--folder", str(tmp_path), "poll"]) == 1, "nothing is done"
