"""What a deployment can draw of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import ConfigError
from intaglio.sampling.scheduler_config import SchedulerConfig
from intaglio.sampling.solvers import solver_table
from intaglio.sampling.trajectory import Trajectory
from intaglio_client.tune import grid
from intaglio_client.tune.grid import ANCHORS, FULL, QUICK, REFERENCE, grid_of, read_grid
from intaglio_client.tune.settings import named_setting

from .deployments import deployment

NEW = named_setting({"steps": 12, "control_some": 2})


def test_the_anchors_are_in_every_grid_once(tmp_path: Path) -> None:
    found = grid_of(deployment(tmp_path), (ANCHORS[0], *QUICK), controls=1, pixels=4096)
    names = [setting.name for setting in found.settings]
    assert names[:3] == [setting.name for setting in ANCHORS]
    assert len(names) == len(set(names))
    assert found.reference == REFERENCE


def test_names_and_files_of_the_full_grid_differ() -> None:
    settings = (REFERENCE, *ANCHORS, *FULL)
    assert len({setting.name for setting in settings}) == len(settings)
    assert len({setting.file_name for setting in settings}) == len(settings)


def test_an_input_that_this_version_does_not_have_leaves_its_settings_out(tmp_path: Path) -> None:
    found = grid_of(deployment(tmp_path), (NEW,), controls=1, pixels=4096)
    assert found.left_out == (f"left out: {NEW.name}: this version has no input control_some",)
    assert len(found.settings) == len(ANCHORS)


@pytest.mark.parametrize(
    ("inputs", "controls", "why"),
    [
        ({"control_guidance_end": 0.5}, 0, "no scene has a control"),
        ({"guidance_end": 0.5}, 1, "no steps without guidance"),
        ({"steps": 90}, 1, "allows 70 steps"),
        ({"scheduler": "later"}, 1, "'later' is unknown"),
        ({"scheduler": "heun", "steps": 36}, 1, "allows 70 steps of these scenes; this takes 71"),
        ({"steps": 5, "sparse_begin": 0.3}, 1, "sparse_begin: no step is taken out"),
        ({"schedule": "karras", "timesteps": [9, 1]}, 1, "timesteps: given beside schedule"),
        ({"steps": 4, "sigmas": [9.0, 1.0, 0.0]}, 1, "steps: 4, but sigmas makes 2 steps"),
    ],
)
def test_what_the_deployment_cannot_draw_is_left_out(
    tmp_path: Path, inputs: dict[str, object], controls: int, why: str
) -> None:
    small = deployment(
        tmp_path,
        profiles={"sizes": [[64, 64]], "guidance": ["on"]},
        limits={"steps": 70},
    )
    found = grid_of(small, (named_setting(inputs),), controls=controls, pixels=4096)
    assert len(found.left_out) == 1
    assert why in found.left_out[0]
    assert found.reference.inputs["steps"] == 70


def test_model_calls_count_and_not_steps(tmp_path: Path) -> None:
    small = deployment(tmp_path, limits={"steps": 70})
    drawn = (
        named_setting({"scheduler": "heun", "steps": 35}),
        named_setting({"scheduler": "euler", "steps": 100, "sparse_every": 2}),
        named_setting({"scheduler": "euler", "timesteps": [900, 500, 100]}),
        named_setting({"scheduler": "euler", "sigmas": [9.0, 1.0, 0.0]}),
    )
    assert grid_of(small, drawn, controls=1, pixels=4096).left_out == ()


def test_limits_below_a_converged_picture_are_refused(tmp_path: Path) -> None:
    """Half of the cost that 100 steps with two controls take."""
    small = deployment(tmp_path, limits={"cost": 4096 * 50 * 3})
    with pytest.raises(ConfigError, match="allow 50 steps of these scenes; at least 60 are needed"):
        grid_of(small, (), controls=2, pixels=4096)


def test_a_default_preset_that_would_change_the_anchors_is_refused(tmp_path: Path) -> None:
    """`control_every` is stated in every request; a solver's own noise is not."""
    small = deployment(tmp_path)
    for values, refused in (({"control_every": 2}, False), ({"control_every": 2, "later": 1}, True)):
        defaults = small.defaults.model_copy(update={"preset": "fast", "preset_values": values})
        preset = small.model_copy(update={"defaults": defaults})
        if refused:
            with pytest.raises(ConfigError, match=r"defaults\.preset fast sets later for every picture"):
                grid_of(preset, (), controls=1, pixels=4096)
        else:
            grid_of(preset, (), controls=1, pixels=4096)


def test_a_checkpoint_for_few_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="method turbo: a checkpoint for few steps has no converged picture"
    ):
        grid_of(deployment(tmp_path, method="turbo"), (), controls=1, pixels=4096)


def test_two_settings_of_one_name_are_refused(tmp_path: Path) -> None:
    other = named_setting({"steps": 7}, name="Euler: 30")
    with pytest.raises(ConfigError, match="two settings are named 'Euler: 30'"):
        grid_of(deployment(tmp_path), (other,), controls=1, pixels=4096)


def test_a_lora_with_a_method_is_a_setting_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        def __init__(self, method: str | None) -> None:
            self.method = method

    class Registry:
        loras = {"night": Entry(None), "fast": Entry("lcm")}  # noqa: RUF012

    monkeypatch.setattr(grid, "load_registry", lambda path: Registry)
    (tmp_path / "loras.yaml").write_text("loras: {}\n")
    found = grid.lora_settings(deployment(tmp_path, registry="loras.yaml", swap="all"))
    assert [(one.name, one.inputs, one.apart) for one in found] == [
        ("lora fast", {"loras": [{"id": "fast"}]}, "another model: lcm")
    ]
    assert grid.lora_settings(deployment(tmp_path)) == ()


def test_a_users_grid_is_read(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        "settings:\n- {inputs: {scheduler: unipc, steps: 9}}\n- {name: mine, inputs: {steps: 7}}\n"
    )
    assert [setting.name for setting in read_grid(path)] == ["unipc 9", "mine"]


def test_an_unknown_input_of_a_users_grid_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("settings:\n- {inputs: {steps: 9}}\n- {inputs: {sheduler: unipc}}\n")
    with pytest.raises(ConfigError, match=r"settings\[1\]: sheduler: .*did you mean scheduler\?"):
        read_grid(path)


def test_sigmas_of_our_own_begin_where_the_reference_begins() -> None:
    """Solvers that begin at another noise level draw other pictures."""
    stated = [setting for setting in FULL if "sigmas" in setting.inputs]
    assert [len(setting.inputs["sigmas"]) - 1 for setting in stated] == [12, 13, 14]
    reference = solver_table(Trajectory(**REFERENCE.inputs), scheduler_config=SchedulerConfig())
    for setting in stated:
        steps = len(setting.inputs["sigmas"]) - 1
        inputs = {name: setting.inputs[name] for name in ("scheduler", "sigmas")}
        table = solver_table(Trajectory(steps=steps, **inputs), scheduler_config=SchedulerConfig())
        assert table.init_scale == pytest.approx(reference.init_scale, rel=1e-3)
