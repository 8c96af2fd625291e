"""From measured speeds to the seconds of an image."""

from __future__ import annotations

import pytest

from intaglio_export.card.measure import CardSpeed
from intaglio_export.card.projection import Drawing, image_seconds, work_seconds
from intaglio_export.card.work import Work

SPEED = CardSpeed(
    operations={"product": 100.0, "convolution": 50.0, "attention": 10.0},
    fp8=None,
    bandwidth=1000.0,
    from_host=1.0,
    sums="float16",
    error=2e-3,
    seconds=1.0,
)
STEP = Work({"product": 100.0, "convolution": 100.0, "attention": 10.0}, 0, 500.0)


def test_each_kind_of_work_has_its_own_speed() -> None:
    assert work_seconds(STEP, SPEED) == pytest.approx(1 + 2 + 1 + 0.5)


def test_steps_run_the_unet_and_each_controlnet_and_the_decoder_runs_once() -> None:
    work = {"unet": STEP, "controlnet": STEP.times(0.5), "vae_decoder": STEP.times(2)}
    drawing = Drawing(1024, 1024, 10, guidance=True, controls=2)
    assert image_seconds(drawing, work, SPEED) == pytest.approx(10 * (4.5 + 2 * 2.25) + 9)
    assert str(drawing) == "1024x1024, 10 steps, guidance, ControlNets: 2"
