"""Stages of the miniature's own training, at a few pictures and steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from miniature import architecture, train
from miniature.styles import LESSONS


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with two noisy pictures a set and an untrained autoencoder."""
    monkeypatch.setattr(train, "WORK", tmp_path)
    monkeypatch.setattr(train, "DECODER_SAMPLES", 2)
    monkeypatch.setattr(train, "BATCH", train.BATCH | {"decoder": 2})
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for name in ("world", *LESSONS):
        (tmp_path / "data" / name).mkdir(parents=True)
        np.save(tmp_path / "data" / name / "images.npy", pictures)
    torch.manual_seed(0)
    state = architecture.make_autoencoder().state_dict()
    train.save_atomically(state | {"scaling_factor": torch.tensor([0.5])}, tmp_path / "train" / "autoencoder.safetensors")
    return tmp_path


def trained(work: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int, every: int = 100) -> dict[str, torch.Tensor]:
    monkeypatch.setattr(train, "STEPS", train.STEPS | {"decoder": steps})
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", train.CHECKPOINT_EVERY | {"decoder": every})
    train.train_decoder()
    return load_file(work / "train" / "decoder.safetensors")


def test_the_decoder_is_trained_and_the_encoder_stays(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_file(work / "train" / "autoencoder.safetensors")
    after = trained(work, monkeypatch, steps=2)
    assert after.keys() == before.keys()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_a_stage_that_was_stopped_goes_on_from_its_checkpoint(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(work, monkeypatch, steps=4)
    (work / "train" / "decoder.safetensors").unlink()
    save = train.Run._save

    def stop(run: train.Run, step: int) -> None:
        save(run, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Run, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(work, monkeypatch, steps=4, every=2)
    assert not (work / "train" / "decoder.safetensors").exists()
    monkeypatch.setattr(train.Run, "_save", save)
    resumed = trained(work, monkeypatch, steps=4)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
