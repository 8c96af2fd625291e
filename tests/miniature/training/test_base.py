"""Text encoders and UNet, at a few pictures and steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from miniature.labels import CLASS_COUNTS
from miniature.training.base import BaseModel, canonical, load_base
from miniature.training.loop import save_atomically
from miniature.training.settings import Settings

from .conftest import Train


@pytest.fixture
def captioned(trial: Settings) -> Settings:
    """The trial's pictures with captions and labels."""
    folder = trial.work / "data" / "base"
    (folder / "captions.json").write_text(json.dumps([["a person", "an acrobat in the snow"]] * 4))
    np.save(folder / "labels.npy", np.zeros((4, len(CLASS_COUNTS)), np.int64))
    return trial


def test_a_second_cycle_goes_on_from_the_first(captioned: Settings, train_stage: Train) -> None:
    train_stage("autoencoder", captioned)
    first = train_stage("base", captioned)
    second = train_stage("refine", captioned)
    assert first.keys() == second.keys()
    assert not any(name.startswith("heads.") for name in first), "the task's heads are not kept"
    assert {name.partition(".")[0] for name in first} == {"text_encoder", "text_encoder_2", "unet"}
    moved = [float((second[name] - first[name]).abs().max()) for name in first]
    assert 0 < max(moved) < 0.1


def test_weights_of_another_architecture_are_refused(trial: Settings) -> None:
    state = canonical(BaseModel().state_dict())
    save_atomically({name: tensor.clone() for name, tensor in state.items()}, trial.weights("base"))
    load_base("base", trial)
    save_atomically({"unet.other": torch.zeros(1)}, trial.weights("base"))
    with pytest.raises(SystemExit, match=r"base\.safetensors does not fit this architecture"):
        load_base("base", trial)


def test_names_have_text_model_in_them() -> None:
    state = {name: torch.zeros(1) for name in ("text_encoder.encoder.x", "text_encoder_2.text_projection.y")}
    assert list(canonical(state)) == ["text_encoder.text_model.encoder.x", "text_encoder_2.text_projection.y"]
