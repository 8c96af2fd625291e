from __future__ import annotations

import json
from pathlib import Path

import pytest

from intaglio.cli import main
from intaglio_client.bench.written import write_report

from .runs import report_of, workload_of

WORKLOAD = workload_of(clients={"kind": "closed", "concurrency": [1], "requests": 20})


@pytest.mark.parametrize("words", [[], ["run"]])
def test_a_workload_may_stand_in_the_place_of_a_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no.yaml"
    assert main(["bench", *words, str(missing)]) == 1
    assert f"intaglio bench: {missing}: no such file; a workload is a YAML file" in capsys.readouterr().err


def test_compare_ends_with_1_where_a_load_is_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = write_report(report_of(WORKLOAD, lambda place: 0.5 + 0.01 * place), tmp_path / "a", {}).data
    slow = write_report(report_of(WORKLOAD, lambda place: 0.6 + 0.01 * place), tmp_path / "b", {}).data
    assert main(["bench", "compare", str(fast), str(slow), "--quiet"]) == 1
    assert capsys.readouterr().out == "clients-1\n"
    assert main(["bench", "compare", str(slow), str(fast), "--json"]) == 0
    (load,) = json.loads(capsys.readouterr().out)["loads"]
    assert load["verdict"] == "faster"
    assert main(["bench", "compare", str(fast), str(fast)]) == 0
    shown = capsys.readouterr().out
    assert "clients-1" in shown
    assert "1.000 (1.000 to 1.000)" in shown
    assert "no difference shown" in shown


def test_turns_need_a_server_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[3] / "benchmarks/workloads/miniature.yaml"
    options = ["--a", "127.0.0.1:9", "--b", "127.0.0.1:10"]
    assert main(["bench", "turns", str(path), *options]) == 1
    assert "no process of yours listens at 127.0.0.1:9 on this machine" in capsys.readouterr().err
    assert main(["bench", "turns", str(path), *options, "--load", "watched"]) == 1
    assert "watched streams" in capsys.readouterr().err
