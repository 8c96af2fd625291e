"""Keys and alerts in docker/ are those that the code makes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference.pages import ROOT
from reference.shipping import with_key, written_files

CONFIGS = ROOT / "configs"


def test_files_are_as_the_code_writes_them() -> None:
    wrong = [name for name, text in written_files(ROOT).items() if (ROOT / name).read_text() != text]
    assert wrong == [], "run: python -m reference"


def test_a_changed_configuration_gets_another_key() -> None:
    before = (ROOT / "docker/kubernetes/overlays/l4/intaglio.yaml").read_text()
    changed, job = with_key(before.replace("images: 2", "images: 1"), CONFIGS)
    same, same_job = with_key(before, CONFIGS)
    assert same == before
    assert changed != before.replace("images: 2", "images: 1")
    assert job.startswith("intaglio-build-tensorrt-rtx-1-6-1-120-")
    assert job != same_job


def test_a_build_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="build: must be"):
        with_key("base: {folder: x}\nbuild: ../build\n", CONFIGS)
