"""A deployment that takes too much is refused with what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import NetworkFile
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines import card
from intaglio.engines.card import CardMemory
from intaglio.errors import ConfigError
from intaglio.serving import cards, memory_limits
from intaglio.serving.memory import GIB, MIB, predict_memory
from intaglio.serving.memory_limits import check_memory, check_memory_beside, remedies

from ..conftest import Tiny

CONTROL = {"architecture": "sdxl-base-1.0", "seed": 1, "type": "pose"}


def write(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "base": {"architecture": "sdxl-base-1.0", "seed": 0},
        "controlnets": {"pose": CONTROL},
        "profiles": {"sizes": [[1024, 1024]], "text_chunks": 1},
        "build": "build",
    }
    path = folder / "plate.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def deployment(folder: Path, **changes: Any) -> Deployment:
    return load_deployment(write(folder, **changes))


def test_refused_with_numbers_and_what_helps(tmp_path: Path) -> None:
    found = deployment(
        tmp_path,
        memory_limit_gib=10.0,
        profiles={"sizes": [[1024, 1024], [1536, 1536]], "batch": 2, "text_chunks": 1},
    )
    with pytest.raises(ConfigError) as refusal:
        check_memory(found, None, free=80 * GIB)
    for words in (
        "plate needs ",
        "weights ",
        "activations ",
        "memory_limit_gib allows 10.00 GiB",
        "no ControlNet pose",
        "profiles.batch: 1",
    ):
        assert words in str(refusal.value)
    with pytest.raises(ConfigError, match=r"the card has free 8\.00 GiB"):
        check_memory(deployment(tmp_path), None, free=8 * GIB)
    assert check_memory(deployment(tmp_path), None, free=80 * GIB).bytes < 80 * GIB


def test_the_deployments_own_card_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = (40 * GIB, 2 * GIB)
    monkeypatch.setattr(
        memory_limits,
        "read_card_memory",
        lambda gpu: CardMemory(total=80 * GIB, used=80 * GIB - free[gpu], free=free[gpu]),
    )
    monkeypatch.setattr(card, "gpu_count", lambda: 2)
    assert check_memory(deployment(tmp_path), None).place == "card"
    with pytest.raises(ConfigError, match=r"the card has free 2\.00 GiB"):
        check_memory(deployment(tmp_path, execution={"gpu": 1}), None)
    with pytest.raises(ConfigError, match="allowed: 0 to 1"):
        check_memory(deployment(tmp_path, execution={"gpu": 2}), None)


def test_two_builds_at_once(tmp_path: Path, tiny: Tiny) -> None:
    """A reload needs room for what it loads beside what is served; on the host there always is."""
    plan = NetworkFile(
        path="unet.plan", key="0" * 64, files={"unet.plan": FileDigest(sha256="0" * 64, size=5 * GIB)}
    )
    manifest = tiny.manifest.model_copy(update={"networks": {"unet": plan}, "runtime": "tensorrt-rtx"})
    found = deployment(tmp_path)
    served = predict_memory(found, manifest)
    assert check_memory_beside(found, manifest, served, free=served.bytes).bytes == served.bytes
    with pytest.raises(
        ConfigError,
        match=r"needs .* beside the .* GiB served; the card has free 4\.00 GiB; restart `intaglio serve`",
    ):
        check_memory_beside(found, manifest, served, free=4 * GIB)
    limited = deployment(tmp_path, memory_limit_gib=15.5)
    with pytest.raises(ConfigError, match=r"memory_limit_gib leaves"):
        check_memory_beside(limited, manifest, served, free=80 * GIB)
    assert (
        check_memory_beside(found, tiny.manifest, predict_memory(found, tiny.manifest), free=0).place
        == "host"
    )


def test_remedies_save_what_they_say(tmp_path: Path) -> None:
    found = deployment(
        tmp_path, precision="fp32", profiles={"sizes": [[1024, 1024], [768, 768]], "text_chunks": 1}
    )
    offered = remedies(found, None)
    assert [remedy.change for remedy in offered] == [
        "precision: fp16",
        "no ControlNet pose",
        "no size 1024x1024",
    ]
    assert offered[0].bytes == predict_memory(found.model_copy(update={"precision": "fp16"}), None).bytes
    assert all(remedy.bytes < predict_memory(found, None).bytes for remedy in offered)
    assert remedies(deployment(tmp_path, controlnets={}), None) == ()


def test_smaller_tiles_are_a_remedy_where_the_decoder_decides(tmp_path: Path) -> None:
    found = deployment(tmp_path, profiles={"sizes": [[1024, 1024], [1536, 1024]], "text_chunks": 1})
    offered = {remedy.change: remedy.bytes for remedy in remedies(found, None)}
    saved = predict_memory(found, None).bytes - offered["profiles.decoder_pixels: 1048576"]
    assert saved > 0.3 * 1288 * MIB


def test_smaller_tiles_are_a_remedy_of_what_is_built_too(tmp_path: Path, tiny: Tiny) -> None:
    found = deployment(tmp_path, profiles={"sizes": [[2048, 2048]], "text_chunks": 1}, controlnets={})
    digest = {"vae.plan": FileDigest(sha256="0" * 64, size=MIB)}
    decoder = NetworkFile(path="vae.plan", key="0" * 64, files=digest, activation_bytes=5 * GIB)
    built = tiny.manifest.model_copy(
        update={"networks": {"vae_decoder": decoder}, "runtime": "tensorrt-rtx", "profiles": found.profiles}
    )
    with pytest.raises(
        ConfigError, match=r"activations 5\.00.* what would help: profiles\.decoder_pixels: 1048576 \("
    ):
        check_memory(found, built, free=predict_memory(found, built).bytes - 1)


def test_the_limit_is_no_part_of_a_build(tmp_path: Path) -> None:
    assert deployment(tmp_path, memory_limit_gib=10.0).digest == deployment(tmp_path).digest


def test_every_card_that_draws_needs_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and for a reload beside what is served."""
    free = (60 * GIB, 2 * GIB)
    monkeypatch.setattr(
        memory_limits,
        "read_card_memory",
        lambda gpu: CardMemory(total=80 * GIB, used=80 * GIB - free[gpu], free=free[gpu]),
    )
    monkeypatch.setattr(card, "gpu_count", lambda: 2)
    monkeypatch.setattr(cards, "gpu_count", lambda: 2)
    assert check_memory(deployment(tmp_path, server={"gpus": [0]}), None).place == "card"
    for gpus in ([0, 1], "all"):
        with pytest.raises(ConfigError, match=r"gpu 1 has free 2\.00 GiB"):
            check_memory(deployment(tmp_path, server={"gpus": gpus}), None)
    with pytest.raises(ConfigError, match=r"server\.gpus: 3: no such card, CUDA sees 2 here"):
        check_memory(deployment(tmp_path, server={"gpus": [0, 3]}), None)
