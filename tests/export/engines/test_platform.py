"""Which runtime and card a build is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, MissingExtra
from intaglio_export.engines import platform as platform_module
from intaglio_export.engines.platform import Platform, resolve_platform

from ...checkpoint import Checkpoint
from ..conftest import write_config


def test_tensorrt_without_a_card_needs_a_target(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_module, "gpu_capability", lambda gpu: None)
    pytest.importorskip("tensorrt_rtx")
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="tensorrt-rtx"))
    with pytest.raises(ConfigError, match="the card must be named"):
        resolve_platform(deployment)


@pytest.mark.parametrize(
    ("card", "packaged", "runtime", "target"),
    [
        (None, True, "onnxruntime", "cpu"),
        ("sm89", True, "tensorrt-rtx", "sm89"),
        ("sm89", False, "onnxruntime", "cpu"),
    ],
)
def test_auto_takes_the_card_that_is_here(  # noqa: PLR0913, PLR0917
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    card: str | None,
    packaged: bool,
    runtime: str,
    target: str,
) -> None:
    monkeypatch.setattr(platform_module, "gpu_capability", lambda gpu: card)
    monkeypatch.setattr(
        platform_module, "runtime_version", lambda name: "1" if packaged or name == "onnxruntime" else None
    )
    platform = resolve_platform(
        load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="auto"))
    )
    assert (platform.runtime, platform.target, platform.on_gpu) == (runtime, target, runtime != "onnxruntime")


def test_the_card_of_the_deployment_is_looked_at(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_module, "runtime_version", lambda name: "1")
    monkeypatch.setattr(platform_module, "gpu_capability", lambda gpu: ("sm80", "sm120")[gpu])
    monkeypatch.setattr("intaglio.engines.card.gpu_count", lambda: 2)

    def resolved(gpu: int, **changes: object) -> Platform:
        config = write_config(tmp_path / "a.yaml", checkpoint, execution={"gpu": gpu}, **changes)
        return resolve_platform(load_deployment(config))

    platform = resolved(1, runtime="auto")
    assert (platform.target, platform.on_gpu, platform.gpu) == ("sm120", True, 1)
    with pytest.raises(ConfigError, match="no such card"):
        resolved(2, runtime="auto")
    with pytest.raises(ConfigError, match=r"a: server\.instances: 2: a card has one instance"):
        resolved(1, runtime="auto", server={"instances": 2})
    with pytest.raises(ConfigError, match=r"server\.gpus names cards, but onnxruntime"):
        resolved(1, runtime="onnxruntime", server={"gpus": "all"})


def test_missing_package_names_the_extra(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_module, "runtime_version", lambda name: None)
    with pytest.raises(MissingExtra, match=r"intaglio\[tensorrt\]"):
        resolve_platform(
            load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="tensorrt", target="sm89"))
        )
