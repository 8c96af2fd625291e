"""diffusers on a case, beside the engines: the same case must give the same picture."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from benchmarks.measuring.case import Case, load_case
from benchmarks.measuring.pictures import psnr
from benchmarks.measuring.timing import Stopwatch
from benchmarks.speed.eager import (
    Meter,
    arrange,
    first_noise,
    make_image,
    make_pipeline,
    meter_stages,
    time_cfg_steps,
)
from benchmarks.speed.engines import run_image
from intaglio.sampling.noise import diffusers_noise
from intaglio.serving.build_check import check_build
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.commands.progress import ConsoleReporter

CONFIG = """
base: {architecture: sdxl-reduced, seed: 0}
controlnets: {pose: {architecture: sdxl-reduced, seed: 1, type: pose}}
profiles: {sizes: [[64, 64]], batch: 1, guidance: ["on"], text_chunks: 1}
precision: fp32
runtime: onnxruntime
defaults: {steps: 6, guidance_scale: 5.0, scheduler: euler}
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    config = tmp_path_factory.mktemp("eager") / "reduced.yaml"
    config.write_text(CONFIG + f"build: {config.parent / 'build'}\n")
    with ConsoleReporter(Console(quiet=True)) as reporter:
        build_deployment(config, BuildOptions(), reporter=reporter)
    return load_case(config, steps=6, images=1)


def test_eager_and_engines_make_the_same_picture(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = case.deployment
    manifest, folder = check_build(deployment), deployment.build_folder
    with Preprocess(manifest, folder) as preprocess, Diffuse(manifest, folder) as diffuse:
        png = run_image(case, 0, (preprocess, diffuse), Stopwatch())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the pipeline drew its own noise, which depends on version and precision")

    monkeypatch.setattr(diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl, "randn_tensor", refuse)
    theirs = np.asarray(make_image(make_pipeline(case, "cpu"), case, 0))
    ours = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert ours.std() > 3
    assert psnr(ours, theirs) > 60


def test_a_pipeline_in_half_precision_is_given_the_noise_that_the_engines_start_from(case: Case) -> None:
    expected = diffusers_noise(case.seed_of(3), (1, 4, 8, 8))
    found = first_noise(case, 3, torch.float16)
    assert found.dtype == torch.float16
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_strongest_arrangement_draws_the_same_picture(case: Case) -> None:
    pipeline = make_pipeline(case, "cpu")
    before = np.asarray(make_image(pipeline, case, 0))
    arrange(pipeline)
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert hasattr(pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1, "to_qkv")
    assert psnr(np.asarray(make_image(pipeline, case, 0)), before) > 50


def test_a_step_reaches_from_one_unet_pass_to_the_next_and_is_also_timed_alone(case: Case) -> None:
    pipeline, meter = make_pipeline(case, "cpu"), Meter("cpu")
    meter_stages(pipeline, meter, peer="eager")
    make_image(pipeline, case, 0)
    meter.collect(keep=False)
    assert not meter.laps, "the first image is not kept"
    make_image(pipeline, case, 0)
    meter.collect(keep=True)
    assert len(meter.laps["unet"]) == len(meter.laps["controlnet"]) == case.steps
    assert len(meter.laps["step"]) == case.steps - 1
    assert min(meter.laps["step"]) > min(meter.laps["unet"]) + min(meter.laps["controlnet"])
    before = make_image(pipeline, case, 0)
    alone = time_cfg_steps(pipeline, case)
    assert min(meter.laps["unet"]) / 2 < alone["high"], "it runs the UNet"
    assert make_image(pipeline, case, 0) == before, "the pipeline is as it was"
    rows = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    time_cfg_steps(pipeline, replace(case, guidance_scale=1.0))
    assert set(rows) == {1}, "without guidance there is one row"
