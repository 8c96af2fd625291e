from __future__ import annotations

import dataclasses
from pathlib import Path

from intaglio_client.bench.kept import Kept
from intaglio_client.bench.memory import Memory
from intaglio_client.bench.runs import runs_of

from .runs import samples_with, workload_of


def test_a_result_counts_only_for_what_it_was_measured_of(tmp_path: Path) -> None:
    (run,) = runs_of(workload_of(one={"kind": "closed", "concurrency": [1]}))
    kept = Kept(tmp_path, {"build": "b"}, {"version": "2.45.0"}, "x")
    assert kept.samples(run) is None
    samples = samples_with(run, lambda place: 0.5)
    kept.keep(run, samples, [{"timestamp": 1}], Memory(5, None))
    assert kept.samples(run) == samples
    assert kept.memory(run) == Memory(5, None)
    (other,) = runs_of(workload_of(one={"kind": "closed", "concurrency": [1], "warm_up": 3}))
    assert kept.samples(other) is None
    assert kept.memory(other) is None
    for change in ({"served": {"build": "c"}}, {"tool": {"version": "2.60"}}, {"machine": "y"}):
        assert dataclasses.replace(kept, **change).samples(run) is None


def test_a_damaged_result_is_measured_again(tmp_path: Path) -> None:
    (run,) = runs_of(workload_of(one={"kind": "closed", "concurrency": [1]}))
    kept = Kept(tmp_path, {}, {}, "x")
    kept.keep(run, samples_with(run, lambda place: 0.5), [])
    path = tmp_path / "one-1.json"
    path.write_bytes(path.read_bytes()[:-40])
    assert kept.samples(run) is None
