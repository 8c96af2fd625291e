"""The model `diffuse` and its one thread, against a stand-in for `triton_python_backend_utils`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.triton_models.diffuse import DiffuseModel
from intaglio.triton_models.turnstile import Turnstile

from .conftest import Log


def test_figures_wait_until_a_version_is_alone(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton destroys the figures of one name with the first version that goes."""
    made: list[Any] = []

    def metrics(pb: Any) -> Any:
        made.append(pb)
        return SimpleNamespace(report=lambda loras, *, waited: None)

    monkeypatch.setattr("intaglio.triton_models.diffuse.LoraMetrics", metrics)
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    model: Any = DiffuseModel()
    model._pb, model._folder, model._version = sys.modules["triton_python_backend_utils"], tmp_path, "2"
    monkeypatch.setattr(
        model, "_respond", lambda request: (tmp_path / "1").rmdir() if request == "second" else None
    )
    monkeypatch.setattr(model, "_send", lambda sender, response: counts.append(len(made)))
    model._turnstile, counts = Turnstile(overtakes=1, capacity=0), []
    for request in ("first", "second", "third"):
        assert model._turnstile.put((request, None), "")
    model._turnstile.close()
    model._serve(SimpleNamespace(digest=""), None)
    assert counts == [0, 1, 1]


def test_figures_that_cannot_be_reported_do_not_end_the_thread_that_answers(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = DiffuseModel()
    model._pb = sys.modules["triton_python_backend_utils"]
    model._turnstile = Turnstile(overtakes=1, capacity=0)
    sent: list[str] = []
    monkeypatch.setattr(model, "_respond", lambda request: f"answer to {request}")
    monkeypatch.setattr(model, "_send", lambda sender, response: sent.append(response))
    for request in ("one", "two"):
        assert model._turnstile.put((request, None), "")
    model._turnstile.close()

    def report(loras: Any, *, waited: float) -> None:
        raise RuntimeError("no metrics")

    model._serve(SimpleNamespace(digest=""), SimpleNamespace(report=report))
    assert sent == ["answer to one", "answer to two"]
    assert all("no metrics" in line for line in log.lines)
    assert len(log.lines) == 2
