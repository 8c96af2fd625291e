"""Both readers of single files, the build's and the trainer's, judge a file alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from intaglio.errors import BuildError
from intaglio.single_files import needed_files, other_prediction, stated_prediction
from intaglio_export.weights.repository_files import COMPONENTS, pipeline_files
from intaglio_export.weights.single_file import check_single_file
from intaglio_train import ConfigError
from intaglio_train.single_file import load_single_file

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
COMPUTED: list[dict[str, str]] = [
    {},
    {"modelspec.prediction_type": "epsilon"},
    {"modelspec.prediction_type": "eps", "modelspec.predict_key": "epsilon"},
    {"ss_v_parameterization": "False", "ss_zero_terminal_snr": "None"},
    {"modelspec.prediction_type": "v"},
    {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
]
COMPUTED_TENSORS = ["v_pred", "ztsnr"]
OTHER_TENSORS = ["edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std"]
OTHER_METADATA: list[dict[str, str]] = [
    {"modelspec.prediction_type": "flow"},
    {"modelspec.predict_key": "x0"},
    {"ss_v_parameterization": "yes"},
]
HEADERS: list[tuple[str | None, dict[str, str], bool]] = [
    *((None, metadata, True) for metadata in COMPUTED),
    *((tensor, {}, True) for tensor in COMPUTED_TENSORS),
    *((tensor, {}, False) for tensor in OTHER_TENSORS),
    *((None, metadata, False) for metadata in OTHER_METADATA),
]
NEEDED = needed_files(lambda name: not name.endswith("tokenizer.json"))


@pytest.mark.parametrize(("tensor", "metadata", "is_computed"), HEADERS)
def test_both_readers_follow_the_rule(
    tmp_path: Path, tensor: str | None, metadata: dict[str, str], is_computed: bool
) -> None:
    """The file is no whole model, so each reader refuses it in the end: for what it predicts, or for that."""
    tensors: dict[str, Any] = {FIRST: torch.zeros(8, 4, 3, 3)}
    if tensor is not None:
        tensors[tensor] = torch.zeros(1)
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata)
    problem = other_prediction(tensors, metadata)
    assert (problem is None) == is_computed
    with pytest.raises(BuildError) as building:
        check_single_file(path, unet={})
    with pytest.raises(ConfigError) as training:
        load_single_file(path, tmp_path / "no configurations")
    for refused in (building, training):
        found = str(refused.value)
        assert "predict" not in found if problem is None else problem in found


@pytest.mark.parametrize(
    ("tensors", "metadata", "stated"),
    [
        ((), {}, {}),
        ((), {"modelspec.prediction_type": "eps"}, {"prediction_type": "epsilon"}),
        (("v_pred",), {"modelspec.prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}),
        (
            ("v_pred", "ztsnr"),
            {},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        ),
        (
            (),
            {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        ),
        (
            (),
            {"modelspec.predict_key": "v", "ss_v_parameterization": "False"},
            {"prediction_type": "v_prediction"},
        ),
    ],
)
def test_what_a_file_states_of_its_prediction(
    tensors: tuple[str, ...], metadata: dict[str, str], stated: dict[str, Any]
) -> None:
    assert stated_prediction(tensors, metadata) == stated


@pytest.mark.parametrize("lost", [None, *NEEDED])
def test_both_readers_need_the_same_configurations(tmp_path: Path, lost: str | None) -> None:
    folder = tmp_path / "sdxl"
    for name in NEEDED:
        if name != lost:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
    expected = None if lost is None else f"{lost} is missing"
    assert pipeline_files(()).missing(folder) == expected
    path = tmp_path / "a.safetensors"
    save_file({FIRST: torch.zeros(8, 4, 3, 3)}, path)
    with pytest.raises(ConfigError) as training:
        load_single_file(path, folder)
    assert (f"has no {lost}" in str(training.value)) == (lost is not None)
    if lost is not None and lost.partition("/")[0] not in COMPONENTS:
        with pytest.raises(BuildError, match=rf"{lost} is missing"):
            pipeline_files(()).select([name for name in NEEDED if name != lost])
