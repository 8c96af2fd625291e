"""What a deployment will take, and that one which takes too much is refused with what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import NetworkFile
from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.memory import GIB, MIB, fitting_controlnets, predict_memory
from intaglio.serving.memory_limits import remedies

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


def test_a_union_takes_as_much_as_a_controlnet_and_some_embeddings_more(tmp_path: Path) -> None:
    """In both guidance modes, of 128x128 latents and 320 channels: one a place, one for each end of a window,
    and that of no control.
    """
    plain = deployment(tmp_path)
    union = {"hub": "xinsir/controlnet-union-sdxl-1.0", "union": {"pose": "openpose", "depth": "depth"}}
    united = deployment(tmp_path, controlnets={"all": union})
    assert size(united, "weights") == size(plain, "weights")
    assert size(united, "activations") == size(plain, "activations")
    embedding = 128 * 128 * 320 * 2
    more = size(united, "buffers") - size(plain, "buffers")
    assert more == pytest.approx(2 * (4 + 8 + 1) * embedding, rel=1e-4)


@pytest.mark.parametrize(("changes", "part", "factor"), [
    ({"precision": "fp32"}, "weights text", 2.0),
    ({"profiles": {"sizes": [[2048, 1024]], "text_chunks": 1}}, "activations", 2.0),
    (
        {"profiles": {"sizes": [[2048, 2048]], "text_chunks": 1, "decoder_pixels": 1536 * 1024}},
        "activations",
        (1176 / 1024) ** 2,
    ),
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


def test_merging_of_loras(tmp_path: Path) -> None:
    """The merge's buffers of the largest matrix and rank: 2 x 40 MiB of factors, 2 x 25 MiB of weights."""
    (tmp_path / "loras.yaml").write_text("loras: {}")
    swap: dict[str, Any] = {"swap": "transformer", "registry": "loras.yaml"}
    assert size(deployment(tmp_path), "merging") == 0
    assert size(deployment(tmp_path, **swap, execution={"lora_staging_mib": 0}), "merging") == 0
    assert size(deployment(tmp_path, **swap), "merging") == (2 * 40 + 2 * 25) * MIB + 4 * 1024


def test_a_place_of_a_request_has_one_set_of_buffers(tmp_path: Path) -> None:
    """Buffers follow the controls of one request, not the ControlNets of the deployment."""
    many = {f"pose{number}": CONTROL for number in range(6)}
    two, four = (deployment(tmp_path, controlnets=many, limits={"controls": most}) for most in (2, 4))
    assert size(deployment(tmp_path, limits={"controls": 2}), "buffers") == size(two, "buffers")
    assert size(two, "buffers") < size(four, "buffers")


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
    three = predict_memory(deployment(tmp_path, server={"instances": 3}), tiny.manifest)
    assert three.bytes == 3 * on_host.bytes


def test_small_controlnets_on_the_host_are_opened_twice(tmp_path: Path, tiny: Tiny) -> None:
    """Where a request may have two, which then run at the same time, each with residuals of its own."""

    def plan(mib: int) -> NetworkFile:
        return NetworkFile(
            path="p",
            key="0" * 64,
            files={"p": FileDigest(sha256="0" * 64, size=mib * MIB)},
            activation_bytes=mib * MIB,
        )

    def parts(*sizes: int, most: int = 2, runtime: str = "onnxruntime") -> dict[str, int]:
        networks = {f"controlnet.{name}": plan(mib) for name, mib in zip("ab", sizes, strict=True)}
        networks["vae_decoder"] = plan(2000)
        manifest = tiny.manifest.model_copy(update={"networks": networks, "runtime": runtime})
        found = deployment(tmp_path, controlnets={"a": CONTROL, "b": CONTROL}, limits={"controls": most})
        return {part.name: part.bytes for part in predict_memory(found, manifest).parts}

    assert parts(100, 300, most=1)["weights controlnet.a"] == 100 * MIB
    assert parts(100, 300, runtime="tensorrt-rtx")["weights controlnet.a"] == 100 * MIB
    large, small = parts(300, 300), parts(100, 300)
    assert (small["weights controlnet.a"], small["weights controlnet.b"]) == (200 * MIB, 300 * MIB)
    assert (large["activations vae_decoder"], small["activations vae_decoder"]) == (2000 * MIB, 2100 * MIB)
    assert large["buffers"] < small["buffers"]


def test_what_the_server_opens_is_counted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "loras.yaml").write_text("loras: {}")
    swap: dict[str, Any] = {"swap": "transformer", "registry": "loras.yaml"}
    found = {part.name for part in predict_memory(deployment(tmp_path, **swap), None).parts}
    assert "weights lora_merge" in found
    assert "weights vae_encoder" not in found, "no request brings an image to encode"
    assert "weights lora_merge" not in {
        part.name for part in predict_memory(deployment(tmp_path), None).parts
    }


MANY: dict[str, Any] = {f"control{number}": CONTROL for number in range(5)}


def test_only_so_many_controlnets_are_counted_as_are_open(tmp_path: Path) -> None:
    """SDXL with five ControlNets takes more than a card of 16 GB has; with three it does not."""
    whole = predict_memory(deployment(tmp_path, controlnets=MANY), None)
    one = size(deployment(tmp_path), "weights controlnet")
    assert whole.bytes > 17 * GIB
    assert "ControlNets" not in whole.summary
    for resident in (1, 3, 9):
        shared = deployment(tmp_path, controlnets=MANY, execution={"resident_controlnets": resident})
        assert size(shared, "weights controlnet") == min(resident, 5) * one
    fitting = deployment(tmp_path, controlnets=MANY, memory_limit_gib=15.5)
    prediction = predict_memory(fitting, None)
    resident = fitting_controlnets(fitting, None)
    assert 2 <= resident < 5
    assert prediction.bytes <= 15.5 * GIB < prediction.bytes + one
    assert f"; {resident} of 5 ControlNets at the same time)" in prediction.summary
    assert fitting_controlnets(deployment(tmp_path, controlnets=MANY, memory_limit_gib=1), None) == 1
    assert fitting_controlnets(deployment(tmp_path, controlnets={}, memory_limit_gib=1), None) == 0
    assert fitting_controlnets(deployment(tmp_path, controlnets=MANY), None) == 5


def test_the_largest_controlnets_are_counted_and_a_build_has_decided(tmp_path: Path, tiny: Tiny) -> None:
    def plan(gib: int) -> NetworkFile:
        return NetworkFile(path="p", key="0" * 64, files={"p": FileDigest(sha256="0" * 64, size=gib * GIB)})

    networks = {f"controlnet.control{number}": plan(1 + number) for number in range(5)}
    networks |= {f"controlnet_context.control{number}": plan(10 if number == 1 else 0) for number in range(5)}
    execution = tiny.manifest.execution.model_copy(update={"resident_controlnets": 2})
    manifest = tiny.manifest.model_copy(
        update={"networks": networks, "runtime": "tensorrt-rtx", "execution": execution}
    )
    found = predict_memory(deployment(tmp_path, controlnets=MANY), manifest)
    counted = {part.name: part.bytes // GIB for part in found.parts if "controlnet" in part.name}
    assert counted == {
        "weights controlnet.control1": 2,
        "weights controlnet_context.control1": 10,
        "weights controlnet.control4": 5,
        "weights controlnet_context.control4": 0,
    }
    offered = {remedy.change for remedy in remedies(deployment(tmp_path, controlnets=MANY), manifest)}
    assert "execution.resident_controlnets: 1" in offered
    assert "execution.resident_controlnets: 2" not in offered
    assert "no ControlNet control0" not in offered, "it is not among the largest"
