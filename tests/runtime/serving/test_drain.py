"""The end of a server, with a stand-in for Triton."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from intaglio.errors import Unavailable
from intaglio.serving.drain import Drain
from intaglio.serving.versions import ServedRepository, ServedVersion


class Models:
    """Triton's part: what was called, and how often old versions are still found."""

    def __init__(self, *, busy: float, broken: str = "") -> None:
        self.calls: list[tuple[str, str]] = []
        self.watched: list[int] = []
        self._busy = busy
        self._broken = broken

    def load_model(self, model: str, *, until: float) -> None:
        self.calls.append(("load", model))
        if model == self._broken:
            raise Unavailable("no room for another process")

    def unload_model(self, model: str, *, until: float) -> None:
        self.calls.append(("unload", model))

    def has_loaded_others(self, version: int, models: Any) -> bool:
        assert (version, set(models)) == (4, {"annotate", "identity", "sdxl", "sdxl_stream"})
        self._busy -= 1
        return self._busy >= 0

    def watch(self, version: int) -> None:
        self.watched.append(version)

    @property
    def administration(self) -> Models:
        return self


def drain(process: Any, folder: Path, version: ServedVersion) -> Drain:
    repository = ServedRepository(folder)
    repository.start_with(version)
    return Drain(process, repository, version, 4)


def test_public_models_refuse_and_old_requests_are_waited_for(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    triton, served = Models(busy=2), tmp_path / "served"
    assert drain(triton, served, versions(3)).run(until=time.monotonic() + 60)
    assert triton.calls == [("load", model) for model in ("sdxl", "sdxl_stream", "annotate", "identity")]
    assert triton.watched == [4]
    for model in ("annotate", "identity", "sdxl", "sdxl_stream"):
        text = (served / model / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.backend, config.platform, list(config.ensemble_scheduling.step)) == ("python", "", [])
        assert list(config.version_policy.specific.versions) == [4]
        assert config.model_transaction_policy.decoupled is (model == "sdxl_stream")
        assert "StoppingModel as TritonPythonModel" in (served / model / "4/model.py").read_text()


def test_requests_that_take_too_long_are_not_waited_for(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    triton = Models(busy=float("inf"))
    assert not drain(triton, tmp_path / "served", versions(3)).run(until=time.monotonic() + 0.2)


def test_a_triton_that_is_too_slow_to_refuse_is_not_waited_for(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    class Slow(Models):
        def load_model(self, model: str, *, until: float) -> None:
            time.sleep(max(until - time.monotonic(), 0))
            raise Unavailable("Triton does not answer: timed out")

        def unload_model(self, model: str, *, until: float) -> None:
            self.load_model(model, until=until)

    triton = Slow(busy=0)
    assert not drain(triton, tmp_path / "served", versions(3)).run(until=time.monotonic() + 0.1)


def test_a_triton_that_is_gone_is_told_from_one_that_is_slow(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    class Gone(Models):
        def load_model(self, model: str, *, until: float) -> None:
            raise Unavailable("Triton does not answer: connection refused")

        unload_model = load_model

    with pytest.raises(Unavailable, match="connection refused"):
        drain(Gone(busy=0), tmp_path / "served", versions(3)).run(until=time.monotonic() + 60)


def test_what_cannot_refuse_is_unloaded(
    tmp_path: Path,
    versions: Callable[[int], ServedVersion],
    full_disk: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    triton = Models(busy=0, broken="sdxl")
    assert drain(triton, tmp_path / "served", versions(3)).run(until=time.monotonic() + 60)
    assert triton.calls[:3] == [("load", "sdxl"), ("unload", "sdxl"), ("load", "sdxl_stream")]
    assert "sdxl is unloaded, since it cannot refuse: no room for another process" in caplog.text
    triton = Models(busy=0)
    ending = drain(triton, tmp_path / "again", versions(3))
    full_disk()
    assert ending.run(until=time.monotonic() + 60)
    assert triton.calls == [("unload", model) for model in ("sdxl", "sdxl_stream", "annotate", "identity")]
