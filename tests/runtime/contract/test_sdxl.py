"""The table of SDXL's networks: tensors, axes, profiles."""

from __future__ import annotations

import pytest

from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.sdxl import (
    axis_sizes,
    context_name,
    network_spec,
    networks_of,
    opened_networks,
    profiles,
)


def test_residuals_of_a_step_are_the_107_megabytes_of_the_design() -> None:
    sizes = axis_sizes(SDXL_ARCHITECTURE, width=1024, height=1024)
    unet = network_spec("unet", SDXL_ARCHITECTURE)
    residuals = [spec for spec in unet.inputs if "residual" in spec.name]
    total = 0
    for spec in residuals:
        count = 2
        for size in spec.shape(sizes):
            count *= size
        total += count
    assert 105e6 < total < 112e6


def test_sizes_round_up_when_halved() -> None:
    sizes = axis_sizes(SDXL_ARCHITECTURE, width=1280, height=720, images=2, chunks=3)
    assert {name: sizes[name] for name in ("h", "w", "h/2", "h/4", "w/4", "B", "N", "T", "C")} == {
        "h": 90, "w": 160, "h/2": 45, "h/4": 23, "w/4": 40, "B": 2, "N": 4, "T": 231, "C": 6,
    }  # fmt: skip
    assert axis_sizes(SDXL_ARCHITECTURE, width=1024, height=1024, images=2, guidance=False)["N"] == 2


def test_controlnet_chains_into_the_unet() -> None:
    unet, control = (
        network_spec("unet", SDXL_ARCHITECTURE),
        network_spec("controlnet.pose", SDXL_ARCHITECTURE),
    )
    for output in control.outputs:
        same = unet.tensor(output.name.removesuffix("_out"))
        assert (same.axes, same.dtype) == (output.axes, output.dtype)
        assert control.tensor(same.name) == same
    assert len({spec.name for spec in control.tensors}) == len(control.tensors)


def test_contexts_are_inputs_of_every_step() -> None:
    assert (context_name("unet"), context_name("controlnet.my_context")) == (
        "unet_context",
        "controlnet_context.my_context",
    )
    for name in ("unet", "controlnet.pose"):
        step, context = (
            network_spec(name, SDXL_ARCHITECTURE),
            network_spec(context_name(name), SDXL_ARCHITECTURE),
        )
        assert set(context.outputs) <= set(step.inputs)
        assert not {spec.name for spec in context.inputs} & {spec.name for spec in step.inputs}


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(KeyError, match="unknown network 'upscaler'"):
        network_spec("upscaler", SDXL_ARCHITECTURE)
    for name in ("controlnet", "unet.pose"):
        with pytest.raises(KeyError, match=f"unknown network '{name}'"):
            network_spec(name, SDXL_ARCHITECTURE)


def test_profiles_are_static_and_cover_every_combination() -> None:
    wanted = {"sizes": [(1024, 1024), (1280, 720)], "batches": (1, 2), "guidance": (True, False), "chunks": 2}
    unet = network_spec("unet", SDXL_ARCHITECTURE)
    found = profiles(unet, SDXL_ARCHITECTURE, **wanted)  # type: ignore[arg-type]
    assert len(found) == 16
    assert len({profile.name for profile in found}) == 16
    for profile in found:
        low, best, high = profile.shapes(unet.tensor("state"))
        assert low == best == high
    sizes = axis_sizes(SDXL_ARCHITECTURE, width=1280, height=720, images=2, guidance=False, chunks=2)
    assert [profile.name for profile in found if profile.admits(sizes)] == ["1280x720-B2-N2-T154"]
    assert len(profiles(network_spec("vae_decoder", SDXL_ARCHITECTURE), SDXL_ARCHITECTURE, **wanted)) == 4  # type: ignore[arg-type]
    (text,) = profiles(network_spec("text_encoder", SDXL_ARCHITECTURE), SDXL_ARCHITECTURE, **wanted)  # type: ignore[arg-type]
    assert text.shapes(network_spec("text_encoder", SDXL_ARCHITECTURE).tensor("input_ids")) == (
        (1, 77),
        (2, 77),
        (4, 77),
    )


def test_a_server_opens_what_a_build_has_but_for_the_encoder() -> None:
    built = networks_of(["controlnet.pose"], swaps=True)
    assert built == (
        "text_encoder",
        "text_encoder_2",
        "unet",
        "unet_context",
        "controlnet.pose",
        "controlnet_context.pose",
        "vae_decoder",
        "vae_encoder",
        "lora_merge",
    )
    assert opened_networks(["controlnet.pose"], merges=True) == tuple(
        name for name in built if name != "vae_encoder"
    )
    assert "lora_merge" not in opened_networks([], merges=False)


def test_every_network_of_a_build_has_a_row() -> None:
    for name in networks_of(["controlnet.pose"], swaps=True):
        assert network_spec(name, SDXL_ARCHITECTURE).outputs
