"""SDXL's architecture with weights from a seed: sizes, sameness, and activations that float16 holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import torch
import transformers
from accelerate import init_empty_weights

from intaglio.contract.architecture import PARAMETERS
from intaglio.contract.config import load_deployment
from intaglio.contract.sdxl import context_name
from intaglio.contract.sources import Source
from intaglio.errors import ConfigError
from intaglio.loras.files import Component, layer_table
from intaglio_export.graphs.attention import cross_attentions
from intaglio_export.weights.registry import base_layers
from intaglio_export.weights.seeded import ARCHITECTURES, Seeded, make_network
from intaglio_export.weights.sources import component_of

SEEDED = Seeded("sdxl-reduced", 0)


def empty(component: str, config: dict[str, Any]) -> Any:
    classes: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "controlnet": diffusers.ControlNetModel,
    }
    if component in classes:
        return classes[component].from_config(config)
    kind: Any = (
        transformers.CLIPTextModel
        if component == "text_encoder"
        else transformers.CLIPTextModelWithProjection
    )
    return kind(transformers.CLIPTextConfig(**config))


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_the_architecture_has_the_published_number_of_parameters(architecture: str) -> None:
    expected: dict[str, int] = {}
    for name, count in PARAMETERS[architecture].items():
        expected[component_of(name)] = expected.get(component_of(name), 0) + count
    for component, total in expected.items():
        with init_empty_weights():
            network = empty(component, dict(ARCHITECTURES[architecture][component]))
        counted = [
            values.numel()
            for key, values in network.named_parameters()
            if component != "vae" or key.startswith(("decoder", "post_quant"))
        ]
        assert sum(counted) == total, component


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_contexts_have_the_parameters_of_what_they_compute(architecture: str) -> None:
    for component in ("unet", "controlnet"):
        with init_empty_weights():
            network = empty(component, dict(ARCHITECTURES[architecture][component]))
        used: list[Any] = [
            project for layer in cross_attentions(network) for project in (layer.to_k, layer.to_v)
        ]
        used += [network.controlnet_cond_embedding] if component == "controlnet" else []
        assert (
            sum(values.numel() for module in used for values in module.parameters())
            == PARAMETERS[architecture][context_name(component)]
        )


def test_the_controlnet_is_the_one_diffusers_makes_of_the_unet() -> None:
    configs = ARCHITECTURES["sdxl-base-1.0"]
    with init_empty_weights():
        ours = empty("controlnet", dict(configs["controlnet"]))
        theirs = diffusers.ControlNetModel.from_unet(
            empty("unet", dict(configs["unet"])), load_weights_from_unet=False
        )
    shapes = [
        {name: tuple(values.shape) for name, values in network.named_parameters()}
        for network in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


def test_weights_follow_seed_and_name() -> None:
    one, same, other = (
        make_network("unet", Seeded("sdxl-reduced", seed), dtype=torch.float16) for seed in (0, 0, 1)
    )
    for (name, values), (_, again), (_, different) in zip(
        one.named_parameters(), same.named_parameters(), other.named_parameters(), strict=True
    ):
        assert values.dtype == torch.float16
        assert torch.equal(values, again), name
        assert values.ndim == 1 or not torch.equal(values, different), name
    layers = one.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    assert not torch.equal(layers.get_parameter("to_q.weight"), layers.get_parameter("to_k.weight"))


def largest_activation(network: Any, run: Any) -> float:
    found = [0.0]

    def watch(_module: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            assert output.isfinite().all()
            found.append(float(output.abs().max()))

    handles = [module.register_forward_hook(watch) for module in network.modules()]
    with torch.no_grad():
        run(network)
    for handle in handles:
        handle.remove()
    return max(found)


def unet_inputs(latents: torch.Tensor, sigma: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    time_ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]).repeat(len(latents), 1)
    return {
        "sample": latents / (sigma**2 + 1) ** 0.5,
        "timestep": 500,
        "encoder_hidden_states": torch.randn(len(latents), 77, 128, generator=generator),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(len(latents), 64, generator=generator),
            "time_ids": time_ids,
        },
    }


def test_activations_stay_far_inside_float16() -> None:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Any] = {
        "unet": lambda network: network(**unet_inputs(latents, 0.0)),
        "controlnet": lambda network: network(
            **unet_inputs(latents, 0.0), controlnet_cond=torch.rand(1, 3, 128, 128)
        ),
        "vae": lambda network: network(torch.rand(1, 3, 64, 64) * 2 - 1),
        "text_encoder": lambda network: network(torch.randint(0, 49407, (2, 77))),
        "text_encoder_2": lambda network: network(torch.randint(0, 49407, (2, 77))),
    }
    for component, run in runs.items():
        assert largest_activation(make_network(component, SEEDED, dtype=torch.float32), run) < 100, component


def wide_architecture() -> dict[str, Any]:
    """The reduced one with the first level of the full-size one, whose groups of ten channels are no multiple
    of the lanes passed on.
    """
    unet = {**ARCHITECTURES["sdxl-reduced"]["unet"], "block_out_channels": [320, 128, 256]}
    return {"unet": {**unet, "transformer_layers_per_block": [1, 1, 1]}}


@pytest.mark.parametrize("architecture", ["sdxl-reduced", "wide"])
def test_a_trajectory_ends_with_latents_of_a_real_range_and_small_errors_stay_small(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "wide", wide_architecture())  # type: ignore[arg-type]
    unet = make_network("unet", Seeded(architecture, 0), dtype=torch.float32)
    scheduler = diffusers.EulerDiscreteScheduler.from_config(SEEDED.scheduler)
    scheduler.set_timesteps(30)
    generator = torch.Generator().manual_seed(0)
    latents = (torch.randn(1, 4, 16, 16, generator=generator) * scheduler.init_noise_sigma).repeat(2, 1, 1, 1)
    assert latents.std() > 10
    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps):
            inputs = unet_inputs(latents, float(scheduler.sigmas[step]))
            same = {"encoder_hidden_states": inputs["encoder_hidden_states"][:1].repeat(2, 1, 1)}
            pooled = {key: value[:1].repeat(2, 1) for key, value in inputs["added_cond_kwargs"].items()}
            predicted = unet(**inputs | same | {"added_cond_kwargs": pooled, "timestep": timestep})[0]
            predicted[1] += 0.01 * torch.randn(
                predicted[1].shape, generator=generator
            )  # as if another implementation made the second
            latents = scheduler.step(predicted, timestep, latents).prev_sample
    assert 0.3 < latents[0].std() < 2
    assert (latents[1] - latents[0]).norm() < 0.1 * latents[0].norm()


def write(folder: Path, text: str) -> Path:
    path = folder / "plate.yaml"
    path.write_text(text + "\nprofiles: {sizes: [[64, 64]]}\n")
    return path


def test_a_base_needs_no_list(tmp_path: Path) -> None:
    deployment = load_deployment(write(tmp_path, "base: {architecture: sdxl-base-1.0, seed: 0}"))
    assert str(deployment.base[0]) == "sdxl-base-1.0 with weights of seed 0"


@pytest.mark.parametrize(
    "base",
    ["{architecture: sdxl-base-1.0}", "{seed: 3}", "{architecture: sdxl-base-1.0, seed: 0, folder: x}"],
)
def test_what_a_seeded_base_cannot_be(tmp_path: Path, base: str) -> None:
    with pytest.raises(ConfigError, match=r"base\[0\].*(go together|exactly one)"):
        load_deployment(write(tmp_path, f"base: {base}"))


def test_loras_are_checked_against_a_seeded_base() -> None:
    table = base_layers((Source(architecture="sdxl-reduced", seed=0),))
    for component in get_args(Component):
        network = make_network(component, SEEDED, dtype=torch.float16)
        shapes = {name: tuple(values.shape) for name, values in network.named_parameters()}
        assert table[component] == layer_table({component: shapes})[component]
        assert len(table[component]) > 10
