"""Stages of the miniature's own training, at a few pictures and steps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from miniature import train
from miniature.styles import LESSONS

Weights = dict[str, torch.Tensor]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with a few noisy pictures a set."""
    monkeypatch.setattr(train, "WORK", tmp_path)
    monkeypatch.setattr(train, "BATCH", train.BATCH | {"autoencoder": 4, "decoder": 4})
    monkeypatch.setattr(train, "LESSONS_IN_BATCH", 1)
    monkeypatch.setattr(train, "RECOLOURED_IN_BATCH", 1)
    rng = np.random.default_rng(0)
    for name in ("base", *LESSONS):
        (tmp_path / "data" / name).mkdir(parents=True)
        np.save(tmp_path / "data" / name / "images.npy", rng.integers(0, 256, (4, 64, 64, 3), np.uint8))
    return tmp_path


def trained(
    work: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int, every: int = 100, stage: str = "autoencoder"
) -> Weights:
    monkeypatch.setattr(train, "STEPS", train.STEPS | {stage: steps})
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", train.CHECKPOINT_EVERY | {stage: every})
    train.STAGES[stage][0]()
    return load_file(work / "train" / f"{stage}.safetensors")


def test_the_scale_makes_the_worlds_latents_of_unit_spread(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = float(trained(work, monkeypatch, steps=2)["scaling_factor"])
    latents = train.encode_all(train.load_autoencoder(), train.rendered("base"))
    assert float(latents.float().std()) * scale == pytest.approx(1, abs=0.01)


def test_the_decoder_goes_on_and_the_encoder_stays(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trained(work, monkeypatch, steps=2)
    after = trained(work, monkeypatch, steps=2, stage="decoder")
    assert after.keys() == before.keys()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_other_colours_keep_the_range_and_the_drawing() -> None:
    x = torch.linspace(-1, 1, 16 * 16).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    odd = train.recoloured(x, torch.Generator().manual_seed(0))
    assert odd.abs().max() <= 1
    assert not torch.equal(odd[0, 0], odd[0, 1])
    assert not torch.equal(odd[0], odd[1])
    assert (odd.flatten(2).diff() >= 0).all()


def test_a_stage_that_was_stopped_goes_on_from_its_checkpoint(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(work, monkeypatch, steps=4)
    (work / "train" / "autoencoder.safetensors").unlink()
    save = train.Run._save

    def stop(run: train.Run, step: int) -> None:
        save(run, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Run, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(work, monkeypatch, steps=4, every=2)
    assert not (work / "train" / "autoencoder.safetensors").exists()
    monkeypatch.setattr(train.Run, "_save", save)
    resumed = trained(work, monkeypatch, steps=4)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_weights_older_than_the_stage_before_are_made_anew(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = work / "before", work / "after"
    stages = {
        name: (lambda: None, lambda path=path: iter((path,)))
        for name, path in (("before", before), ("after", after))
    }
    monkeypatch.setattr(train, "STAGES", stages)
    after.touch()
    assert train.is_done("after")
    assert not train.is_done("before")
    before.touch()
    os.utime(after, (0, 0))
    assert train.is_done("before")
    assert not train.is_done("after")
