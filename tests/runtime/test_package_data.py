"""The files beside the code: where a checkout has them, and where a wheel has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import package_data
from intaglio.package_data import data_path

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_them_where_they_are_edited() -> None:
    assert data_path("configs") == ROOT / "configs"
    assert data_path("configs/poses/waving-01.json").is_file()
    for tokenizer in ("tokenizer", "tokenizer_2"):
        assert (data_path(f"tokenizers/{tokenizer}") / "vocab.json").is_file()
    assert (data_path("tokenizers/tokenizer") / "LICENSE").read_text().count("MIT License") == 1


def test_an_installed_package_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/configs").mkdir(parents=True)
    monkeypatch.setattr(package_data, "_PACKAGE", tmp_path)
    assert data_path("configs") == tmp_path / "data/configs"


@pytest.mark.parametrize("name", ["weights", "tokenizers", "../cli.py"])
def test_only_what_a_wheel_holds_is_found(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="the distribution has no such file"):
        data_path(name)
