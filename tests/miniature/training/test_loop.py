"""A training run that was stopped ends as a whole one does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from miniature.training.loop import Run, State
from miniature.training.settings import Settings, device


def train(settings: Settings) -> State:
    """Learn to be a noisy target."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).to(device())

    def loss_of_step(generator: torch.Generator) -> Tensor:
        x = torch.randn(8, 4, generator=generator, device=device())
        return (layer(x) - x).square().mean()

    return Run("base", layer, settings).train(loss_of_step)


def test_a_run_goes_on_from_its_checkpoint(trial: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(trial, steps={"base": 4}, checkpoint_every=2)
    save = Run._save

    def stop(run: Run, step: int) -> None:
        save(run, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    monkeypatch.setattr(Run, "_save", save)
    resumed = train(settings)
    (settings.work / "train" / "base.checkpoint").unlink()
    whole = train(settings)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_average_trails_the_weights(trial: Settings) -> None:
    torch.manual_seed(0)
    start = nn.Linear(4, 4).weight
    few = train(replace(trial, steps={"base": 2}))["weight"].cpu()
    assert not torch.equal(few, start)
    assert (few - start).abs().max() < 0.1
