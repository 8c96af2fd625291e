"""What a deployment will take, and that one which takes too much is refused with what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import NetworkFile
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import CardMemory, PeakWatch
from intaglio.errors import ConfigError
from intaglio.serving import doctor, memory
from intaglio.serving.memory import GIB, MIB, check_memory, check_memory_beside, predict_memory, remedies

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


def size(found: Deployment, name: str) -> int:
    return sum(part.bytes for part in predict_memory(found, None).parts if part.name.startswith(name))


def test_sdxl_is_what_was_measured(tmp_path: Path) -> None:
    """Figures of docs/performance.md: weights in float16, the decoder's arena, two processes' contexts."""
    found = deployment(tmp_path)
    assert size(found, "weights unet") == pytest.approx(2 * 2_567_463_684 + 44 * MIB, rel=1e-6)
    assert size(found, "activations") == 1288 * MIB
    assert size(found, "contexts") == 1163 * MIB
    assert 11 * GIB < predict_memory(found, None).bytes < 13 * GIB
    assert predict_memory(found, None).place == "card"


@pytest.mark.parametrize(("changes", "part", "factor"), [
    ({"precision": "fp32"}, "weights text", 2.0),
    ({"profiles": {"sizes": [[2048, 1024]], "text_chunks": 1}}, "activations", 2.0),
    ({"profiles": {"sizes": [[2048, 2048]], "text_chunks": 1, "decoder_pixels": 1536 * 1024}}, "activations", (1176 / 1024) ** 2),
    ({"profiles": {"sizes": [[1024, 1024]], "batch": 2, "text_chunks": 1}}, "activations", 2.0),
    ({"controlnets": {"pose": CONTROL, "canny": CONTROL}}, "weights controlnet", 2.0),
])  # fmt: skip
def test_what_each_setting_costs(tmp_path: Path, changes: dict[str, Any], part: str, factor: float) -> None:
    before = size(deployment(tmp_path), part)
    assert size(deployment(tmp_path, **changes), part) == pytest.approx(factor * before, rel=1e-3)


def test_staging_of_loras(tmp_path: Path, tiny: Tiny) -> None:
    """New weights on their way: the whole UNet's at most, of a build what LoRAs may change, and never what an
    engine has as weights.
    """
    (tmp_path / "loras.yaml").write_text("loras: {}")
    swap: dict[str, Any] = {"swap": "transformer", "registry": "loras.yaml"}
    assert "staging" not in {part.name for part in predict_memory(deployment(tmp_path), None).parts}
    whole = deployment(tmp_path, **swap)
    less = deployment(tmp_path, **swap, execution={"lora_staging_mib": 768})
    least = deployment(tmp_path, **swap, execution={"lora_staging_mib": 64})
    none = deployment(tmp_path, **swap, execution={"lora_staging_mib": 0})
    assert (size(whole, "staging"), size(less, "staging"), size(none, "staging")) == (
        4608 * 2**20,
        768 * 2**20,
        0,
    )
    assert size(least, "staging") == 650 * 2**20, "what TensorRT joins goes at once"
    assert "execution.lora_staging_mib: 768" in {remedy.change for remedy in remedies(whole, None)}
    files = {
        "unet.plan": FileDigest(sha256="0" * 64, size=5 * GIB),
        "p": FileDigest(sha256="0" * 64, size=GIB),
    }
    plan = NetworkFile(path="unet.plan", key="0" * 64, files=files, pristine="p")
    manifest = tiny.manifest.model_copy(update={"networks": {"unet": plan}, "runtime": "tensorrt-rtx"})
    parts = {part.name: part.bytes for part in predict_memory(whole, manifest).parts}
    assert (parts["weights unet"], parts["staging"]) == (5 * GIB, GIB)


def test_buffers_grow_with_size_and_controls(tmp_path: Path) -> None:
    plain, larger = (
        deployment(tmp_path),
        deployment(tmp_path, profiles={"sizes": [[1536, 1024]], "text_chunks": 1}),
    )
    assert size(larger, "buffers") > 1.35 * size(
        plain, "buffers"
    )  # keys and values do not grow with the picture
    assert size(deployment(tmp_path, controlnets={}), "buffers") < size(plain, "buffers")


def test_a_build_says_more_than_an_estimate(tmp_path: Path, tiny: Tiny) -> None:
    plan = NetworkFile(
        path="unet.plan",
        key="0" * 64,
        files={"unet.plan": FileDigest(sha256="0" * 64, size=5 * GIB)},
        activation_bytes=3 * GIB,
    )
    manifest = tiny.manifest.model_copy(update={"networks": {"unet": plan}, "runtime": "tensorrt-rtx"})
    prediction = predict_memory(deployment(tmp_path), manifest)
    parts = {part.name: part for part in prediction.parts}
    assert (parts["weights unet"].bytes, parts["weights unet"].source) == (5 * GIB, "the engine's files")
    assert (parts["activations unet"].bytes, parts["activations unet"].source) == (
        3 * GIB,
        "the engine says so",
    )
    on_host = predict_memory(deployment(tmp_path), tiny.manifest)
    assert on_host.place == "host"
    assert "contexts" not in {part.name for part in on_host.parts}


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
        match=r"plate needs .* beside the .* GiB served; the card has free 4\.00 GiB; stop `intaglio serve`",
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


def test_doctor_prints_the_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory, "read_card_memory", lambda: CardMemory(total=16 * GIB, used=GIB, free=15 * GIB)
    )
    shown = CliRunner().invoke(doctor.app, ["--memory", str(write(tmp_path))])
    assert shown.exit_code == 0
    assert "weights unet" in shown.output
    assert "not built: an estimate" in shown.output
    refused = CliRunner().invoke(doctor.app, ["--memory", str(write(tmp_path, memory_limit_gib=2.0))])
    assert refused.exit_code == 1
    assert "does not fit: plate needs" in refused.output


def test_peak_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([4, 6, 9, 5])
    last = [4]

    def reading() -> CardMemory:
        last[0] = next(readings, last[0])
        return CardMemory(total=16, used=last[0], free=16 - last[0])

    monkeypatch.setattr("intaglio.engines.card.read_card_memory", reading)
    monkeypatch.setattr("intaglio.engines.card._EVERY_SECONDS", 0.001)
    with PeakWatch() as watch:
        while last[0] != 5:
            pass
    assert (watch.peak, watch.taken) == (9, 5)
    monkeypatch.setattr("intaglio.engines.card.read_card_memory", lambda: None)
    with PeakWatch() as nothing:
        pass
    assert (nothing.peak, nothing.taken) == (None, None)
