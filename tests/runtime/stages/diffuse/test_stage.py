"""The stage is pure: slices compose, what it keeps changes nothing, damaged builds are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from intaglio.builds.file_checks import FileDigest
from intaglio.engines.interface import Array
from intaglio.errors import EngineMismatch, InvalidRequest, SwapFailed, Unavailable
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SwapLayers
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.stage import Diffuse

from ...loras.world import PlainEngine
from .inputs import CONTROLS, int_tensor


def test_slices_compose(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    whole = diffuse(arrays)
    state = arrays["state"]
    for begin, end in ((0, 2), (2, 2), (2, 3), (3, 5)):
        slice_of = {"state": state, "begin": int_tensor(begin), "end": int_tensor(end)}
        state = diffuse(arrays | slice_of, wanted=["state"])["state"]
    np.testing.assert_array_equal(state, whole["state"])
    last = diffuse(arrays | {"state": state, "begin": int_tensor(5)})
    np.testing.assert_array_equal(last["pixels"], whole["pixels"])


def test_requests_do_not_influence_each_other(
    diffuse: Diffuse, arrays: dict[str, Array], tensors_of: Any
) -> None:
    first = diffuse(arrays)["pixels"]
    usual = {"prompt": "a cat", "seed": 2, "steps": 2, "controls": CONTROLS}
    for change in (
        {"guidance_scale": 1.0},
        {"width": 72, "height": 64},
        {"num_images": 3},
        {"prompt": "cat " * 100},
    ):
        diffuse(tensors_of(**(usual | change)))
    np.testing.assert_array_equal(diffuse(arrays)["pixels"], first)


def test_only_what_is_wanted_is_computed(diffuse: Diffuse, backend: Any, arrays: dict[str, Array]) -> None:
    assert set(diffuse(arrays, wanted=["state"])) == {"state"}
    assert "vae_decoder" not in backend.runs


def test_timings_add_up(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    timings = json.loads(diffuse(arrays)["timings"][0])
    assert set(timings) == {"preprocess", "text_encoders", "denoise", "vae"}


def test_warm_up_needs_no_request(diffuse: Diffuse, backend: Any) -> None:
    diffuse.warm_up()
    assert backend.runs.count("unet") == 2


def test_loras_need_a_build_that_swaps(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    loras = json.dumps([{"id": "knight", "weight": 0.8, "sha256": "0" * 64}])
    with pytest.raises(InvalidRequest, match=r"loras: knight@0\.8; allowed: none: this build does not swap"):
        diffuse(arrays | {"loras": np.array([loras.encode()], object)})


LAYER = "mid_block.attentions.0.proj_in"


def lora_bytes(seed: int) -> bytes:
    """A LoRA of rank 1 of the one layer."""
    values = np.random.default_rng(seed).standard_normal((2, 4)).astype(np.float32)
    down, up = values[:1], values[1:].T
    return save({f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up.copy()})


def open_switch(stage: Diffuse, folder: Path) -> PlainEngine:
    """Let `stage` swap LoRAs of one layer, whose weights only the engine that is returned has."""
    name = f"unet.{LAYER}.weight"
    save_file({name: np.ones((4, 4), np.float32)}, folder / "pristine")
    file = map_tensor_file(folder / "pristine")
    engine = PlainEngine({name: file.read(name)})
    engines: Any = {"unet": engine}
    stage.loras = LoraSwitch(engines, SwapLayers({"unet": file}), store=stage._store, threads=1)
    return engine


def test_limits_of_loras_hold_for_whoever_asks_diffuse_itself(
    tiny: Any, tmp_path: Path, arrays: dict[str, Array]
) -> None:
    """And a request that was let in is not refused for what is published while it waits."""
    shutil.copytree(tiny.folder, tmp_path, dirs_exist_ok=True)
    store = LoraStore(tmp_path / LORAS_FOLDER)
    files = [lora_bytes(seed) for seed in range(4)]
    versions = [hashlib.sha256(data).hexdigest() for data in files]
    store.write_file(versions[0], files[0])
    entry = ServedLora(kind="style", bounds=(0.0, 1.5), versions=(versions[0],))
    store.write(ServedLoras(loras={"night": entry}))

    def asking(version: int, weight: float = 1.0) -> dict[str, Array]:
        loras = json.dumps([{"id": "night", "sha256": versions[version], "weight": weight}])
        return arrays | {"loras": np.array([loras.encode()], object)}

    with Diffuse(tiny.manifest, tmp_path, backend=tiny.backend) as stage:
        stage._manifest = tiny.manifest.model_copy(update={"swap": "transformer"})
        stage._incoming._manifest = stage._manifest
        engine = open_switch(stage, tmp_path)
        for tensors, says in (
            (asking(0, 1.6), r"night at 1\.6; allowed: 0 to 1\.5"),
            (asking(1), f"night has no version {versions[1][:12]}"),
        ):
            with pytest.raises(InvalidRequest, match=says):
                stage(tensors)
        assert engine.refits == []

        tensors = asking(0)
        waiting = Drawing(stage.read(tensors))
        for version in (1, 2):
            store.publish_version("night", versions[version], keep=1, data=files[version])
        assert not store.path(versions[0]).is_file()
        with pytest.raises(SwapFailed, match="No such file"):
            stage.advance(waiting)
        with pytest.raises(InvalidRequest, match=f"night has no version {versions[0][:12]}"):
            stage(tensors)

        stage(asking(1), wanted=["state"])  # retired by the last publication
        store.publish_version("night", versions[3], keep=2, data=files[3])
        assert not store.path(versions[1]).is_file()
        stage(asking(1), wanted=["state"])  # resident, so it needs no file
        assert len(engine.refits) == 1

        stage(asking(3), wanted=["state"])
        store.roll_back("night")
        assert store.path(versions[3]).is_file()
        with pytest.raises(SwapFailed, match="a version of night rolled back while the request waited"):
            stage(asking(3))


def test_damaged_or_missing_engines_are_refused_at_load(tiny: Any) -> None:
    known = tiny.manifest.networks
    unet = known["unet"]
    digest = FileDigest(sha256="1" * 64, size=unet.files["unet.onnx"].size)
    damaged = unet.model_copy(update={"files": {"unet.onnx": digest}})
    lacking = {name: file for name, file in known.items() if name != "vae_decoder"}
    for networks, reason in (
        ({**known, "unet": damaged}, "unet.onnx was changed"),
        (lacking, "vae_decoder: not in the manifest"),
    ):
        manifest = tiny.manifest.model_copy(update={"networks": networks})
        stage = Diffuse(manifest, tiny.folder, backend=tiny.backend)
        with pytest.raises(EngineMismatch, match=f"{reason}.*intaglio build configs/tiny.yaml"), stage:
            pass


def test_a_changed_engine_is_refused(tiny: Any, tmp_path: Path) -> None:
    """The files are hashed while the engines are opened, and the result is reported all the same."""
    folder = tmp_path / "build"
    shutil.copytree(tiny.folder, folder)
    (folder / "unet.onnx").write_text("xxxx")
    with pytest.raises(EngineMismatch, match=r"unet.onnx was changed after it was built"):
        Diffuse(tiny.manifest, folder, backend=tiny.backend).__enter__()


def test_a_build_that_does_not_open_leaves_nothing_open(
    tiny: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    load = backend.load

    last = "controlnet_context.edges"

    def load_all_but_the_last(network: Any, path: Path, **options: Any) -> Any:
        if network.name == last:
            raise EngineMismatch(f"{last}: does not load", command="")
        engine = load(network, path, **options)
        engine.close = lambda: closed.append(network.name)
        return engine

    monkeypatch.setattr(backend, "load", load_all_but_the_last)
    monkeypatch.setattr(backend, "close", lambda: closed.append("backend"))
    with pytest.raises(EngineMismatch, match="does not load"):
        Diffuse(tiny.manifest, tiny.folder, backend=backend).__enter__()
    assert closed[-1] == "backend"
    assert set(closed) == {*tiny.manifest.networks, "backend"} - {last}


def test_controlnets_that_share_a_place_draw_as_if_each_had_its_own(
    tiny: Any, diffuse: Diffuse, tensors_of: Any
) -> None:
    """Also where one could not be opened in between; `timings` say when one was."""
    execution = tiny.manifest.execution.model_copy(update={"resident_controlnets": 1})
    manifest = tiny.manifest.model_copy(update={"execution": execution})
    requests = {
        control: tensors_of(
            prompt="a fox", seed=1, steps=2, controls=f'[{{"type": "{control}", "pose": "waving-01"}}]'
        )
        for control in ("pose", "edges")
    }
    backend = tiny.backend
    load = backend.load

    def without_memory(network: Any, path: Path, **options: Any) -> Any:
        raise Unavailable(f"{network.name}: no memory")

    with Diffuse(manifest, tiny.folder, backend=backend) as shared:
        shared.warm_up()
        assert shared.controlnets.resident == ("controlnet.pose",)
        assert shared.controlnets.counts.swaps == 0
        for control, swaps in (("pose", False), ("edges", True), ("edges", False), ("pose", True)):
            wanted = shared.wanted(shared.read(requests[control]))
            assert shared.needs_swap(wanted) == swaps
            made = shared(requests[control])
            assert ("controlnet_swap" in json.loads(made["timings"][0])) == swaps
            assert not shared.needs_swap(wanted)
            assert np.array_equal(made["state"], diffuse(requests[control])["state"])
        backend.load = without_memory
        with pytest.raises(Unavailable, match=r"controlnet\.edges: no memory"):
            shared(requests["edges"])
        backend.load = load
        for control in ("pose", "edges"):
            made = shared(requests[control])
            assert np.array_equal(made["state"], diffuse(requests[control])["state"])


def test_a_closed_stage_refuses_requests(tiny: Any, backend: Any, arrays: dict[str, Array]) -> None:
    with Diffuse(tiny.manifest, tiny.folder, backend=backend) as stage:
        pass
    with pytest.raises(RuntimeError, match="enter it first"):
        stage(arrays)


def test_a_callers_slice_has_the_controlnets_of_later_steps(tiny: Any, tensors_of: Any) -> None:
    """What no step changes is computed for all steps that follow."""
    execution = tiny.manifest.execution.model_copy(update={"resident_controlnets": 1})
    manifest = tiny.manifest.model_copy(update={"execution": execution})
    later = '[{"type": "edges", "pose": "waving-01", "begin": 0.5}]'
    arrays = tensors_of(prompt="a fox", seed=1, steps=4, controls=later)
    with Diffuse(manifest, tiny.folder, backend=tiny.backend) as shared:
        assert shared.controlnets.resident == ("controlnet.pose",)
        first = shared(arrays | {"end": int_tensor(2)}, wanted=["state"])["state"]
        last = shared(arrays | {"state": first, "begin": int_tensor(2)}, wanted=["state"])["state"]
        np.testing.assert_array_equal(last, shared(arrays, wanted=["state"])["state"])
