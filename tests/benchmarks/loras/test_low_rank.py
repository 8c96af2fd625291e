"""Parts that build and time each rank, with a workbench that writes a file in the place of an engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.loras import low_rank, low_rank_build
from benchmarks.measuring.results import read_part

CASE = Path("case.json")


class Bench:
    """Counts what it compiles."""

    profile = SimpleNamespace(name="1024x1024")
    platform = SimpleNamespace(runtime="onnxruntime")

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.full_after = 9

    def network(self) -> Any:
        return SimpleNamespace(named_modules=list)

    def export(self, _network: Any, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "model.onnx"

    def compile(self, _onnx: Path, _profile: Any, *, folder: Path) -> float:
        if len(self.compiled) == self.full_after:
            raise OSError("the disk is full")
        (folder / "engine.plan").touch()
        self.compiled.append(folder.name)
        return 1.0

    def remove_graph(self, _folder: Path) -> None: ...

    def time(self, folder: Path, _profile: Any) -> tuple[dict[str, float], None]:
        assert (folder / "engine.plan").is_file()
        return {"median": 0.1}, None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    for module in (low_rank, low_rank_build):
        monkeypatch.setattr(module, "workbench", lambda _work: made)
    return made


def test_a_build_that_was_cut_off_goes_on_and_nothing_is_timed_before(bench: Bench, tmp_path: Path) -> None:
    bench.full_after = 2
    with pytest.raises(OSError, match="the disk is full"):
        low_rank_build.main(CASE, tmp_path)
    with pytest.raises(ValueError, match="no engine of rank 128: the part low_rank_build comes first"):
        low_rank.main(CASE, tmp_path)
    bench.full_after = 9
    low_rank_build.main(CASE, tmp_path)
    assert bench.compiled == ["0", "64", "128"], "each once"
    low_rank.main(CASE, tmp_path)
    ranks = (read_part(tmp_path, "low_rank") or {})["ranks"]
    assert set(ranks) == {"0", "64", "128"}
    assert all(one["pass"] == {"median": 0.1} for one in ranks.values())
    assert not (tmp_path / "low_rank").exists(), "engines at full size take 15 GB"
