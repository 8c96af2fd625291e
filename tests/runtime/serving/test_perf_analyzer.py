"""Where `perf_analyzer` is found, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import IntaglioError
from intaglio.serving import perf_analyzer
from intaglio.serving.perf_analyzer import REQUIREMENTS, find_perf_analyzer


@pytest.fixture(autouse=True)
def _not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_analyzer.shutil, "which", lambda name: None)


def test_one_of_its_own_folder_finds_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "perf_analyzer").touch()
    found = find_perf_analyzer(tmp_path)
    assert found.binary == tmp_path / "bin" / "perf_analyzer"
    assert found.environment["LD_LIBRARY_PATH"].startswith(f"{tmp_path / 'lib'}:")


def test_the_error_is_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(IntaglioError, match=f"--target {tmp_path} {REQUIREMENTS[0]}"):
        find_perf_analyzer(tmp_path)
