"""Every key of every component's configuration has a rule, and each rule does what it says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import transformers
from accelerate import init_empty_weights

from intaglio.errors import ConfigError
from intaglio_export.graphs.attention import cross_attentions
from intaglio_export.plan.architecture import architecture_of
from intaglio_export.weights.configuration import CONFIGURATION, check_configuration, configuration_read
from intaglio_export.weights.latents import LatentStatistics

from ...checkpoint_configs import ACCEPTED, CONTROLNET, PIPELINE, REFUSED, TEXT, UNET, UNION, VAE

CLASSES: dict[str, Any] = {
    "unet": diffusers.UNet2DConditionModel,
    "controlnet": diffusers.ControlNetModel,
    "controlnet_union": diffusers.ControlNetUnionModel,
    "vae": diffusers.AutoencoderKL,
    "text_encoder": transformers.CLIPTextConfig,
}
SDXL: dict[str, dict[str, Any]] = {
    "unet": UNET,
    "controlnet": CONTROLNET,
    "controlnet_union": UNION,
    "vae": VAE,
    "text_encoder": TEXT,
    "text_encoder_2": TEXT | {"hidden_size": 1280, "projection_dim": 1280},
    "pipeline": PIPELINE,
}
PARAMETERS = [
    (component, key, one.default)
    for component, library in CLASSES.items()
    for key, one in inspect.signature(library.__init__).parameters.items()
    if key not in ("self", "kwargs")
]


@pytest.mark.parametrize(("component", "key", "default"), PARAMETERS)
def test_every_parameter_has_a_rule_and_its_default(component: str, key: str, default: Any) -> None:
    rule = CONFIGURATION[component].get(key)
    assert rule is not None
    if rule.kind in ("read", "only", "only each"):
        assert rule.default == default


def test_every_value_that_transformers_writes_has_a_rule() -> None:
    written = transformers.CLIPTextConfig().to_dict()
    check_configuration("text_encoder", written | {"use_cache": True}, source="here")


@pytest.mark.parametrize("name", ACCEPTED)
def test_published_checkpoints_pass(name: str) -> None:
    component, config = ACCEPTED[name]
    check_configuration(component, config, source=name)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name: str) -> None:
    component, config, message = REFUSED[name]
    with pytest.raises(ConfigError, match=f"{name}: {component} says .*{message}") as refused:
        check_configuration(component, config, source=name)
    assert str(refused.value).count("\n") == 0


RULES = [(component, key) for component, rules in CONFIGURATION.items() for key in rules]


@pytest.mark.parametrize(
    ("component", "key"), [one for one in RULES if CONFIGURATION[one[0]][one[1]].kind.startswith("only")]
)
def test_every_other_value_is_refused(component: str, key: str) -> None:
    for other in ("something else", ["something else"]):
        with pytest.raises(ConfigError, match=f"{component} says {key}: .*; supported is"):
            check_configuration(component, SDXL[component] | {key: other}, source="here")


OTHER_VALUES: dict[tuple[str, str], Any] = {
    ("unet", "addition_time_embed_dim"): 128,
    ("unet", "attention_head_dim"): [10, 10, 20],
    ("unet", "block_out_channels"): [320, 640, 640],
    ("unet", "cross_attention_dim"): 768,
    ("unet", "layers_per_block"): 3,
    ("unet", "projection_class_embeddings_input_dim"): 2560,
    ("unet", "transformer_layers_per_block"): [1, 2, 4],
    ("unet", "reverse_transformer_layers_per_block"): [4, 2, 1],
    ("controlnet", "addition_time_embed_dim"): 128,
    ("controlnet", "attention_head_dim"): 8,
    ("controlnet", "block_out_channels"): [320, 640, 640],
    ("controlnet", "cross_attention_dim"): 768,
    ("controlnet", "layers_per_block"): 3,
    ("controlnet", "num_attention_heads"): 8,
    ("controlnet", "projection_class_embeddings_input_dim"): 2560,
    ("controlnet", "transformer_layers_per_block"): 1,
    ("controlnet_union", "num_control_type"): 8,
    ("controlnet_union", "num_proj_channel"): 640,
    ("controlnet_union", "num_trans_channel"): 640,
    ("vae", "block_out_channels"): [128, 256, 512],
    ("vae", "latents_mean"): None,
    ("vae", "latents_std"): None,
    ("vae", "scaling_factor"): 0.5,
    ("text_encoder", "hidden_size"): 1024,
    ("text_encoder", "max_position_embeddings"): 99,
    ("text_encoder_2", "hidden_size"): 768,
    ("text_encoder_2", "max_position_embeddings"): 99,
    ("text_encoder_2", "projection_dim"): 768,
    ("pipeline", "force_zeros_for_empty_prompt"): False,
}
"""Another value of each key that intaglio reads."""


def effect(configs: Mapping[str, Mapping[str, Any]]) -> Any:
    """Everything that intaglio makes of the keys it reads; the refusal where it does not fit."""
    parts = {name: config for name, config in configs.items() if name != "pipeline"}
    parts["controlnet.pose"] = parts.pop("controlnet")
    parts["controlnet_union.all"] = union = parts.pop("controlnet_union")
    try:
        architecture = architecture_of(parts, base="here")
    except ConfigError as error:
        return str(error)
    pipeline = configuration_read("pipeline", configs["pipeline"])
    return (
        architecture,
        LatentStatistics.of(configuration_read("vae", configs["vae"])),
        pipeline["force_zeros_for_empty_prompt"],
        configuration_read("controlnet_union", union)["num_control_type"],  # which modes it may serve
    )


@pytest.mark.parametrize(
    ("component", "key"), [one for one in RULES if CONFIGURATION[one[0]][one[1]].kind == "read"]
)
def test_every_key_that_is_read_matters(component: str, key: str) -> None:
    if (component, key) == ("text_encoder", "projection_dim"):
        pytest.skip("SDXL reads the projection of the second encoder only")
    statistics = {"latents_mean": [0, 1, 2, 3], "latents_std": [1, 2, 3, 4]}
    configs = SDXL | {"vae": VAE | statistics}
    # A ControlNet-Union shares these keys with a ControlNet.
    same = (component.removesuffix("_union"), key)
    other = OTHER_VALUES[component, key] if (component, key) in OTHER_VALUES else OTHER_VALUES[same]
    changed = configs | {component: configs[component] | {key: other}}
    assert isinstance(effect(configs), tuple)
    assert effect(changed) != effect(configs)


def test_absent_values_are_those_of_the_libraries() -> None:
    """A ControlNet that names no middle block has the default one; a VAE without a factor has diffusers'."""
    spelled = CONTROLNET | {"mid_block_type": "UNetMidBlock2DCrossAttn"}
    assert effect(SDXL | {"controlnet": spelled}) == effect(SDXL)
    config = {key: value for key, value in VAE.items() if key != "scaling_factor"}
    assert (
        LatentStatistics.of(configuration_read("vae", config)).scaling_factor
        == diffusers.AutoencoderKL().config.scaling_factor
    )


@pytest.mark.parametrize("key", ["latents_mean", "latents_std"])
def test_statistics_have_a_number_for_each_channel(key: str) -> None:
    with pytest.raises(ConfigError, match=f"vae says {key}: .*must have 4 numbers"):
        check_configuration("vae", VAE | {key: [1.0, 2.0]}, source="here")


IGNORED_BY_OUR_ATTENTION: dict[str, Any] = {
    "residual_connection": False,
    "rescale_output_factor": 1.0,
    "group_norm": None,
    "spatial_norm": None,
    "norm_cross": None,
    "norm_q": None,
    "norm_k": None,
    "added_kv_proj_dim": None,
    "only_cross_attention": False,
    "is_causal": False,
    "pre_only": False,
    "upcast_softmax": False,
}
"""Options of diffusers' Attention that the graphs do not compute, each with the value that means nothing."""


@pytest.mark.parametrize("name", ["stabilityai/stable-diffusion-xl-base-1.0 unet", "segmind/SSD-1B unet"])
def test_the_blocks_that_pass_have_no_other_attention(name: str) -> None:
    """Graphs replace diffusers' processor of cross-attention by one of intaglio's own."""
    with init_empty_weights():
        unet = diffusers.UNet2DConditionModel.from_config(ACCEPTED[name][1])
    layers: list[Any] = cross_attentions(unet)
    found = architecture_of(
        {**{key: SDXL[key] for key in ("vae", "text_encoder", "text_encoder_2")}, "unet": ACCEPTED[name][1]},
        base=name,
    ).attentions
    assert [(layer.heads, layer.to_k.out_features // layer.heads) for layer in layers] == [
        (one.heads, one.width) for one in found
    ]
    for layer in layers:
        assert {key: getattr(layer, key) for key in IGNORED_BY_OUR_ATTENTION} == IGNORED_BY_OUR_ATTENTION
        assert len(layer.to_out) == 2
