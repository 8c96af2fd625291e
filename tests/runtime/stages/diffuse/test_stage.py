"""`diffuse` is pure: slices compose, passes and caches change nothing, bad tensors fail alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.pictures import psnr
from intaglio.builds.manifest import FileDigest
from intaglio.engines.interface import Array
from intaglio.errors import EngineMismatch, IntaglioError, InvalidRequest
from intaglio.stages.diffuse.stage import ControlPlan, Diffuse, active_controls, image_passes
from intaglio.stages.preprocess.stage import Preprocess


@pytest.fixture
def backend(tiny: Any) -> Any:
    return tiny.backend


@pytest.fixture
def diffuse(tiny: Any, backend: Any) -> Iterator[Diffuse]:
    with Diffuse(tiny.manifest, tiny.folder, backend=backend) as stage:
        yield stage


@pytest.fixture(scope="module")
def preprocess(tiny: Any) -> Iterator[Preprocess]:
    with Preprocess(tiny.manifest, tiny.folder) as stage:
        yield stage


CONTROLS = json.dumps(
    [{"type": "pose", "pose": "waving-01", "end": 0.5}, {"type": "canny", "pose": "waving-01", "weight": 0.5}]
)


@pytest.fixture
def arrays(preprocess: Preprocess, request_tensors: Any) -> dict[str, Array]:
    """A stochastic solver and two controls: everything a slice must carry over."""
    tensors = request_tensors(prompt="a fox", seed=1, steps=5, scheduler="euler_a", controls=CONTROLS)
    return {
        name: value
        for name, value in preprocess(tensors).items()
        if name not in ("output_format", "metadata")
    }


def int_tensor(value: int) -> Array:
    return np.array([value], np.int32)


def test_slices_compose(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    whole = diffuse(arrays)
    state = arrays["state"]
    for begin, end in ((0, 2), (2, 2), (2, 3), (3, 5)):
        state = diffuse(
            arrays | {"state": state, "begin": int_tensor(begin), "end": int_tensor(end)}, wanted=["state"]
        )["state"]
    np.testing.assert_array_equal(state, whole["state"])
    last = diffuse(arrays | {"state": state, "begin": int_tensor(5)})
    np.testing.assert_array_equal(last["pixels"], whole["pixels"])


def test_requests_do_not_influence_each_other(
    diffuse: Diffuse, arrays: dict[str, Array], preprocess: Preprocess, request_tensors: Any
) -> None:
    first = diffuse(arrays)["pixels"]
    for values in (
        {"guidance_scale": 1.0},
        {"width": 72, "height": 64},
        {"num_images": 3},
        {"prompt": "cat " * 100},
    ):
        other = preprocess(
            request_tensors(**{"prompt": "a cat", "seed": 2, "steps": 2, "controls": CONTROLS, **values})
        )
        diffuse({name: value for name, value in other.items() if name not in ("output_format", "metadata")})
    np.testing.assert_array_equal(diffuse(arrays)["pixels"], first)


def test_a_repeated_request_allocates_nothing(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, allocated, allocate = diffuse(arrays)["pixels"], [], backend.allocate

    def counted(shape: tuple[int, ...], dtype: str) -> Any:
        allocated.append(shape)
        return allocate(shape, dtype)

    monkeypatch.setattr(backend, "allocate", counted)
    np.testing.assert_array_equal(diffuse(arrays)["pixels"], first)
    assert not allocated
    diffuse(arrays | {"end": int_tensor(3)}, wanted=["state"])
    assert sorted(shape[0] for shape in allocated) == [3] * 4, "tables of three steps"


def test_prompts_are_encoded_once_and_together(
    diffuse: Diffuse, backend: Any, preprocess: Preprocess, request_tensors: Any
) -> None:
    def run(**values: Any) -> int:
        tensors = preprocess(request_tensors(**{"prompt": "a fox", "seed": 1, "steps": 1, **values}))
        before = backend.runs.count("text_encoder")
        diffuse({name: value for name, value in tensors.items() if name not in ("output_format", "metadata")})
        return int(backend.runs.count("text_encoder")) - before

    assert run(negative_prompt="bad") == 1  # both prompts in one pass
    assert run(negative_prompt="bad", seed=2) == 0
    assert run(negative_prompt="bad", prompt="a (fox:1.2)") == 1  # weights are part of the key
    assert run() == 0  # an absent negative prompt is zeros: nothing to encode


def test_vae_runs_only_for_pixels_and_windows_leave_controls_out(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array]
) -> None:
    assert set(diffuse(arrays, wanted=["state"])) == {"state"}
    assert "vae_decoder" not in backend.runs
    assert backend.runs.count("controlnet.pose") == 2  # steps 0 and 1 of 5 end by 0.5
    assert backend.runs.count("controlnet.edges") == 5


def test_a_control_that_takes_no_part_costs_nothing(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array]
) -> None:
    diffuse(arrays | {"begin": int_tensor(3)}, wanted=["state"])
    assert [name for name in backend.runs if name.endswith("context.pose")] == []
    assert backend.runs.count("controlnet_context.edges") == backend.runs.count("unet_context") == 1


def test_controls_in_one_place_share_its_buffers(
    diffuse: Diffuse,
    backend: Any,
    preprocess: Preprocess,
    request_tensors: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(control: str) -> Array:
        tensors = preprocess(
            request_tensors(
                prompt="a cat", seed=2, steps=1, controls=json.dumps([{"type": control, "pose": "waving-01"}])
            )
        )
        return diffuse(
            {name: value for name, value in tensors.items() if name not in ("output_format", "metadata")}
        )["pixels"]

    first, taken, allocate = made("pose"), [], backend.allocate
    monkeypatch.setattr(
        backend, "allocate", lambda shape, dtype: taken.append(shape) or allocate(shape, dtype)
    )
    assert not np.array_equal(made("edges"), first)
    np.testing.assert_array_equal(made("pose"), first)
    assert not taken


def test_timings_add_up(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    timings = json.loads(diffuse(arrays)["timings"][0])
    assert set(timings) == {"preprocess", "text_encoders", "denoise", "vae"}


def test_warm_up_needs_no_request(diffuse: Diffuse, backend: Any) -> None:
    diffuse.warm_up()
    assert backend.runs.count("unet") == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"begin": int_tensor(3), "end": int_tensor(2)}, "begin"),
        ({"end": int_tensor(6)}, "begin"),
        ({"state": np.zeros((4, 1, 4, 8, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 3, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((3, 1, 4, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 4, 12, 8), np.float64)}, "state"),
        ({"noise": np.zeros((2, 1, 4, 12, 8), np.float32)}, "noise"),
        ({"input_scale": np.ones(4, np.float32)}, "input_scale"),
        ({"time_ids": np.zeros((1, 6), np.float32)}, "time_ids"),
        ({"token_ids": np.zeros((2, 3, 1, 77), np.int64)}, "token_ids"),
        ({"token_ids": np.zeros((2, 2, 3, 77), np.int64)}, "token_ids"),
        ({"control_maps": np.zeros((1, 96, 64, 3), np.uint8)}, "control_maps"),
        ({"control_maps": np.zeros((2, 8, 8, 3), np.uint8)}, "control_maps"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    diffuse: Diffuse, arrays: dict[str, Array], change: dict[str, Array], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        diffuse(arrays | change)
    assert caught.value.field == field


def test_damaged_or_missing_engines_are_refused_at_load(tiny: Any) -> None:
    unet = tiny.manifest.networks["unet"]
    damaged = unet.model_copy(
        update={"files": {"unet.onnx": FileDigest(sha256="1" * 64, size=unet.files["unet.onnx"].size)}}
    )
    for networks, reason in (
        ({**tiny.manifest.networks, "unet": damaged}, "unet.onnx: content changed"),
        (
            {name: file for name, file in tiny.manifest.networks.items() if name != "vae_decoder"},
            "vae_decoder: not in the manifest",
        ),
    ):
        stage = Diffuse(
            tiny.manifest.model_copy(update={"networks": networks}), tiny.folder, backend=tiny.backend
        )
        with pytest.raises(EngineMismatch, match=f"{reason}.*intaglio build configs/tiny.yaml"), stage:
            pass


def test_passes() -> None:
    assert image_passes(5, (1, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert image_passes(1, (1, 4)) == [slice(0, 1)]


def test_windows_are_those_of_diffusers() -> None:
    def plan(weight: float, begin: float, end: float) -> ControlPlan:
        return ControlPlan("pose", np.zeros((3, 1, 1), np.float32), weight, begin, end)

    plans = [plan(1, 0, 1), plan(1, 0.25, 0.75), plan(0, 0, 1)]
    steps = 6
    for step in range(steps):  # diffusers: keep = 1 - (i / n < start or (i + 1) / n > end)
        kept = [
            place
            for place, (start, end) in enumerate([(0, 1), (0.25, 0.75)])
            if not (step / steps < start or (step + 1) / steps > end)
        ]
        assert active_controls(plans, step, steps) == kept


def test_a_picture_that_is_not_finite_is_an_error(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    state = arrays["state"].copy()
    state[0, 0, 0, 3, 3] = np.nan
    with pytest.raises(IntaglioError, match="not finite"):
        diffuse(arrays | {"state": state, "begin": int_tensor(5)})
    assert diffuse(arrays)["pixels"].any()


def test_what_is_too_large_to_decode_at_once_is_decoded_in_tiles(
    tiny: Any, backend: Any, diffuse: Diffuse, arrays: dict[str, Array]
) -> None:
    whole = diffuse(arrays)
    profiles = tiny.manifest.profiles.model_copy(update={"decoder_pixels": 64 * 96 // 2})
    with Diffuse(
        tiny.manifest.model_copy(update={"profiles": profiles}), tiny.folder, backend=backend
    ) as stage:
        backend.runs.clear()
        tiled = stage(arrays)
        assert backend.runs.count("vae_decoder") == 4, "two halves that overlap are more than a half each"
        broken = whole["state"].copy()
        broken[0, 0, 0, -1, -1] = np.nan
        with pytest.raises(IntaglioError, match="not finite"):  # in one tile of them
            stage(arrays | {"state": broken, "begin": int_tensor(5)})
    np.testing.assert_array_equal(tiled["state"], whole["state"])
    assert tiled["pixels"].shape == whole["pixels"].shape
    assert 20 < psnr(tiled["pixels"], whole["pixels"]) < 100


def test_outside_its_window_guidance_is_off(
    diffuse: Diffuse, backend: Any, preprocess: Preprocess, request_tensors: Any
) -> None:
    """Steps 0 and 4 of 5 alone, 1 to 3 with both prompts: as three runs of slices would be."""
    request = {
        "prompt": "a fox",
        "negative_prompt": "bad",
        "seed": 1,
        "steps": 5,
        "scheduler": "dpmpp_2m_karras",
        "controls": CONTROLS,
    }
    keep = {"output_format", "metadata"}
    window = preprocess(request_tensors(**request, guidance_begin=0.2, guidance_end=0.8))
    windowed = diffuse({name: value for name, value in window.items() if name not in keep})
    guided = {
        name: value for name, value in preprocess(request_tensors(**request)).items() if name not in keep
    }
    plain = {
        name: value
        for name, value in preprocess(request_tensors(**request, guidance_scale=1.0)).items()
        if name not in keep
    }
    state = guided["state"]
    for tensors, begin, end in ((plain, 0, 1), (guided, 1, 4), (plain, 4, 5)):
        state = diffuse(
            tensors | {"state": state, "begin": int_tensor(begin), "end": int_tensor(end)}, wanted=["state"]
        )["state"]
    np.testing.assert_array_equal(windowed["state"], state)
    assert not np.array_equal(windowed["state"], diffuse(guided)["state"])


def test_a_whole_window_is_no_window(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    without = {name: value for name, value in arrays.items() if name != "guidance_window"}
    np.testing.assert_array_equal(diffuse(arrays)["state"], diffuse(without)["state"])


def test_a_window_needs_a_build_without_guidance(tiny: Any, arrays: dict[str, Array]) -> None:
    profiles = tiny.manifest.profiles.model_copy(update={"guidance": ("on",)})
    with (
        Diffuse(
            tiny.manifest.model_copy(update={"profiles": profiles}), tiny.folder, backend=tiny.backend
        ) as stage,
        pytest.raises(InvalidRequest, match=r"guidance_window: \[0.0, 0.5\]; allowed: \[0, 1\]"),
    ):
        stage(arrays | {"guidance_window": np.array([0, 0.5], np.float32)})


def test_a_changed_engine_is_refused(tiny: Any, tmp_path: Path) -> None:
    """The files are hashed while the engines are opened: what was found is said all the same."""
    folder = tmp_path / "build"
    shutil.copytree(tiny.folder, folder)
    (folder / "unet.onnx").write_text("xxxx")
    with pytest.raises(EngineMismatch, match=r"unet.onnx: content changed since it was built"):
        Diffuse(tiny.manifest, folder, backend=tiny.backend).__enter__()
