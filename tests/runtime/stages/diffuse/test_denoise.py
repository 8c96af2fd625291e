"""The denoiser through the stage: buffers are reused, controls and guidance act inside their windows only."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import Array, Bound, Engine
from intaglio.engines.onnxruntime import PassesTogether
from intaglio.errors import Unavailable
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from .inputs import CONTROLS, for_diffuse, int_tensor


def test_a_repeated_request_allocates_nothing(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = diffuse(arrays)["pixels"]
    allocated: list[tuple[int, ...]] = []
    allocate = backend.allocate

    def counted(shape: tuple[int, ...], dtype: str) -> Any:
        allocated.append(shape)
        return allocate(shape, dtype)

    monkeypatch.setattr(backend, "allocate", counted)
    np.testing.assert_array_equal(diffuse(arrays)["pixels"], first)
    assert not allocated
    diffuse(arrays | {"end": int_tensor(3)}, wanted=["state"])
    assert sorted(shape[0] for shape in allocated) == [3] * 4, "tables of three steps"


def test_tables_of_another_length_take_the_place_of_the_old_ones(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both together would be the peak of memory: no buffer of a request is larger than its noise."""
    diffuse(arrays, wanted=["state"])
    (workspace,) = diffuse._steps.denoise._workspaces.values()
    old = {name: weakref.ref(array) for name, array in workspace._tables.items()}
    names = list(old)
    allocate = backend.allocate

    def allocated(shape: tuple[int, ...], dtype: str) -> Any:
        assert old[names.pop(0)]() is None
        return allocate(shape, dtype)

    monkeypatch.setattr(backend, "allocate", allocated)
    diffuse(arrays | {"end": int_tensor(3)}, wanted=["state"])
    assert names == []


def test_a_control_runs_in_the_steps_of_its_window(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array]
) -> None:
    diffuse(arrays, wanted=["state"])
    assert backend.runs.count("controlnet.pose") == 2  # steps 0 and 1 of 5 end by 0.5
    assert backend.runs.count("controlnet.edges") == 5


@pytest.mark.parametrize(
    ("pose", "edges", "runs"),
    [
        ({"every": 1}, {"every": 1}, {"pose": 6, "edges": 6}),
        ({"every": 2}, {"every": 2}, {"pose": 3, "edges": 3}),
        ({"every": 4}, {"every": 2}, {"pose": 2, "edges": 3}),
        ({"every": 1}, {"every": 3}, {"pose": 6, "edges": 2}),
        ({"every": 3}, {"every": 2}, {"pose": 2, "edges": 4}),  # edges also in step 3, with pose
        ({"every": 150}, {"every": 150}, {"pose": 1, "edges": 1}),
        ({"every": 2, "begin": 0.5}, {"every": 6}, {"pose": 2, "edges": 1}),  # pose in steps 3 and 5
        ({"every": 2, "end": 0.5}, {"every": 2}, {"pose": 2, "edges": 4}),  # the sum has another first term
        ({"every": 2}, {"every": 2, "end": 0.5}, {"pose": 3, "edges": 2}),
        ({}, {"every": 3}, {"pose": 4, "edges": 2}),  # control_every is 2; pose also in step 3
    ],
)
def test_a_control_runs_in_the_steps_in_which_it_is_due(
    diffuse: Diffuse, backend: Any, tensors_of: Any, pose: Any, edges: Any, runs: Any
) -> None:
    controls = [
        {"type": "pose", "pose": "waving-01", **pose},
        {"type": "canny", "pose": "waving-01", **edges},
    ]
    tensors = tensors_of(
        prompt="a fox", seed=1, steps=6, guidance_scale=1.0, controls=json.dumps(controls), control_every=2
    )
    diffuse(tensors, wanted=["state"])
    assert {name: backend.runs.count(f"controlnet.{name}") for name in runs} == runs


@pytest.mark.parametrize(("fast", "slow"), [("pose", "edges"), ("edges", "pose")])
def test_of_three_controls_the_last_runs_alone(
    tiny: Any, backend: Any, request_tensors: Any, fast: str, slow: str
) -> None:
    """Those that run least often come first, whatever their order in the request. Two sums are kept."""
    limits = tiny.manifest.limits.model_copy(update={"controls": 3})
    manifest = tiny.manifest.model_copy(update={"limits": limits})
    controls = [
        {"type": fast, "pose": "waving-01"},
        {"type": slow, "pose": "waving-01", "every": 2},
        {"type": slow, "pose": "waving-01", "every": 4},
    ]
    tensors = request_tensors(prompt="a fox", seed=1, steps=8, controls=json.dumps(controls))
    with (
        Preprocess(manifest, tiny.folder) as preprocess,
        Diffuse(manifest, tiny.folder, backend=backend) as diffuse,
    ):
        diffuse(for_diffuse(preprocess(tensors)), wanted=["state"])
    assert backend.runs.count(f"controlnet.{fast}") == 8
    assert backend.runs.count(f"controlnet.{slow}") == 8, "both in every second step"


class Together(PassesTogether):
    """Counts how many passes run at the same time."""

    def __init__(self, *, takes: bool = True) -> None:
        super().__init__()
        self.counts: list[int] = []
        self._takes = takes

    def takes(self, engines: Sequence[Engine]) -> bool:
        return self._takes

    def run(self, passes: Sequence[Bound]) -> None:
        self.counts.append(len(passes))
        super().run(passes)


POSE, EDGES = ({"type": name, "pose": "waving-01"} for name in ("pose", "canny"))


@pytest.mark.parametrize(
    ("controls", "counts"),
    [
        ([POSE | {"weight": 0.7}, EDGES], [2] * 6),
        ([POSE, POSE | {"weight": 0.3}], [2] * 6),
        ([POSE, EDGES, POSE | {"weight": 1.5}], [3] * 6),
        ([POSE | {"every": 3}, EDGES], [2, 2]),
        ([POSE | {"every": 4}, EDGES | {"every": 2}, EDGES], [3, 3, 3]),
        ([POSE | {"end": 0.5}, EDGES | {"begin": 0.3}], [2]),
        ([POSE | {"every": 6}, EDGES, POSE | {"begin": 0.5}], [2, 2, 3, 3]),  # two of step 3 follow a sum
        ([POSE, EDGES | {"weight": 0}], []),
    ],
)
def test_controls_that_run_together_draw_what_the_chain_draws(
    tiny: Any, backend: Any, request_tensors: Any, monkeypatch: pytest.MonkeyPatch, controls: Any, counts: Any
) -> None:
    """Bit for bit, also where some of them wait for their step, and in a picture after another one."""
    limits = tiny.manifest.limits.model_copy(update={"controls": 3})
    manifest = tiny.manifest.model_copy(update={"limits": limits})
    with (
        Preprocess(manifest, tiny.folder) as preprocess,
        Diffuse(manifest, tiny.folder, backend=backend) as diffuse,
    ):
        values = {"prompt": "a fox", "seed": 1, "steps": 6}
        tensors = for_diffuse(preprocess(request_tensors(**values, controls=json.dumps(controls))))
        other = for_diffuse(preprocess(request_tensors(**values, controls=json.dumps([EDGES, POSE]))))
        chained = diffuse(tensors)["state"]
        backend.runs.clear()
        diffuse(tensors)
        runs = sorted(backend.runs)
        together = Together()
        monkeypatch.setattr(backend, "together", together)
        diffuse(other)
        backend.runs.clear()
        together.counts.clear()
        np.testing.assert_array_equal(diffuse(tensors)["state"], chained)
    assert together.counts == counts
    assert sorted(backend.runs) == runs, "each as often as in the chain"


def test_networks_that_do_not_run_together_take_no_buffers_for_it(
    tiny: Any, backend: Any, tensors_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Together(takes=False)
    monkeypatch.setattr(backend, "together", together)
    with Diffuse(tiny.manifest, tiny.folder, backend=backend) as diffuse:
        diffuse(tensors_of(prompt="a fox", seed=1, steps=2, controls=json.dumps([POSE, EDGES])))
    assert together.counts == []


def test_residuals_do_not_outlive_a_request(diffuse: Diffuse, tensors_of: Any, tiny: Any) -> None:
    """Neither the next prompt nor the next pass, which has other images, gets those of the one before."""
    usual = {"steps": 4, "controls": CONTROLS, "control_every": 3}
    second = tensors_of(prompt="a cat", seed=2, num_images=3, **usual)
    diffuse(tensors_of(prompt="a fox", seed=1, num_images=2, **usual))
    after_another = diffuse(second)["state"]
    with Diffuse(tiny.manifest, tiny.folder, backend=tiny.backend) as fresh:
        np.testing.assert_array_equal(fresh(second)["state"], after_another)
    for image in range(3):
        alone = second | {name: second[name][:, image : image + 1] for name in ("state", "noise")}
        np.testing.assert_allclose(
            diffuse(alone)["state"][:, 0], after_another[:, image], rtol=1e-4, atol=1e-4
        )


def test_a_slice_begins_with_a_step_that_computes(diffuse: Diffuse, backend: Any, tensors_of: Any) -> None:
    controls = json.dumps([{"type": "pose", "pose": "waving-01"}])
    arrays = tensors_of(prompt="a fox", seed=1, steps=6, controls=controls, control_every=2)
    whole = diffuse(arrays)["state"]
    sliced = {}
    for cut in (2, 3):
        backend.runs.clear()
        first = diffuse(arrays | {"end": int_tensor(cut)}, wanted=["state"])["state"]
        rest = {"state": first, "begin": int_tensor(cut)}
        sliced[cut] = diffuse(arrays | rest, wanted=["state"])["state"]
        assert backend.runs.count("controlnet.pose") == {2: 3, 3: 4}[cut]
    np.testing.assert_array_equal(sliced[2], whole)
    assert not np.array_equal(sliced[3], whole), "step 3 would have used the residuals of step 2"


def test_every_first_step_is_as_without_reuse(diffuse: Diffuse, tensors_of: Any) -> None:
    usual = {"prompt": "a fox", "seed": 1, "steps": 4, "controls": CONTROLS}
    plain = diffuse(tensors_of(**usual))["state"]
    np.testing.assert_array_equal(diffuse(tensors_of(**usual, control_every=1))["state"], plain)
    assert not np.array_equal(diffuse(tensors_of(**usual, control_every=2))["state"], plain)


def test_a_control_that_takes_no_part_costs_nothing(
    diffuse: Diffuse, backend: Any, arrays: dict[str, Array]
) -> None:
    diffuse(arrays | {"begin": int_tensor(3)}, wanted=["state"])
    assert [name for name in backend.runs if name.endswith("context.pose")] == []
    assert backend.runs.count("controlnet_context.edges") == backend.runs.count("unet_context") == 1


def test_controls_in_one_place_share_its_buffers(
    diffuse: Diffuse, backend: Any, tensors_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(control: str) -> Array:
        controls = json.dumps([{"type": control, "pose": "waving-01"}])
        return diffuse(tensors_of(prompt="a cat", seed=2, steps=1, controls=controls))["pixels"]

    first = made("pose")
    taken: list[tuple[int, ...]] = []
    allocate = backend.allocate

    def counted(shape: tuple[int, ...], dtype: str) -> Any:
        taken.append(shape)
        return allocate(shape, dtype)

    monkeypatch.setattr(backend, "allocate", counted)
    assert not np.array_equal(made("edges"), first)
    np.testing.assert_array_equal(made("pose"), first)
    assert not taken


def test_a_request_without_memory_fails_alone(
    diffuse: Diffuse, backend: Any, tensors_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever allocation fails: the same request and the one before it are answered rightly afterwards."""
    small = tensors_of(prompt="a cat", seed=2, steps=1)
    large = tensors_of(prompt="a cat", seed=2, steps=1, width=72, height=64, controls=CONTROLS)
    expected = [diffuse(tensors)["pixels"] for tensors in (small, large)]
    allocate = backend.allocate
    for failing in (0, 1, 5, 20, 40):
        diffuse(small)
        left = [failing]

        def short(shape: tuple[int, ...], dtype: str, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("cudaMalloc: out of memory")
            return allocate(shape, dtype)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "allocate", short)
            with pytest.raises(Unavailable, match="out of memory"):
                diffuse(large)
        for tensors, pixels in zip((large, small), reversed(expected), strict=True):
            np.testing.assert_array_equal(diffuse(tensors)["pixels"], pixels)


@pytest.mark.parametrize("control_every", [1, 2])
def test_outside_its_window_guidance_is_off(diffuse: Diffuse, tensors_of: Any, control_every: int) -> None:
    """Steps 0 and 4 of 5 alone, 1 to 3 with both prompts: as three runs of slices would be."""
    request = {
        "prompt": "a fox",
        "negative_prompt": "bad",
        "seed": 1,
        "steps": 5,
        "scheduler": "dpmpp_2m_karras",
        "controls": CONTROLS,
        "control_every": control_every,
    }
    windowed = diffuse(tensors_of(**request, guidance_begin=0.2, guidance_end=0.8))
    guided = tensors_of(**request)
    plain = tensors_of(**request, guidance_scale=1.0)
    state = guided["state"]
    for tensors, begin, end in ((plain, 0, 1), (guided, 1, 4), (plain, 4, 5)):
        slice_of = {"state": state, "begin": int_tensor(begin), "end": int_tensor(end)}
        state = diffuse(tensors | slice_of, wanted=["state"])["state"]
    np.testing.assert_array_equal(windowed["state"], state)
    assert not np.array_equal(windowed["state"], diffuse(guided)["state"])


def test_a_whole_window_is_no_window(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    without = {name: value for name, value in arrays.items() if name != "guidance_window"}
    np.testing.assert_array_equal(diffuse(arrays)["state"], diffuse(without)["state"])
