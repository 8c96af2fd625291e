"""The architecture of a pipeline from the configurations of its components, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from intaglio.contract.architecture import Architecture, architecture_from_configs
from intaglio.errors import ConfigError
from intaglio_export.weights.configuration import configuration_read

__all__ = ["architecture_of"]

_TIME_IDS: Final = 6
"""SDXL's: original size, crop and target size. The refiner has five. Podell et al., arXiv 2307.01952."""
_SHARED_WITH_UNET: Final = (
    "addition_time_embed_dim",
    "block_out_channels",
    "cross_attention_dim",
    "down_block_types",
    "mid_block_type",
    "projection_class_embeddings_input_dim",
)
"""Values that a ControlNet must share with its UNet."""
_EACH_BLOCK: Final = ("attention_head_dim", "layers_per_block", "transformer_layers_per_block")
"""The same, where one number stands for every block."""

Config = Mapping[str, Any]


def architecture_of(configs: Mapping[str, Config], *, base: str) -> Architecture:
    """The shapes of a pipeline; `configs` are config.json by component, `controlnet.<id>` included.

    Raises:
        ConfigError: the configurations do not fit each other, or a ControlNet is made for another UNet.
    """
    read = {name: configuration_read(name.partition(".")[0], config) for name, config in configs.items()}
    try:
        architecture = architecture_from_configs(
            read["unet"],
            text_encoder=read["text_encoder"],
            text_encoder_2=read["text_encoder_2"],
            vae=read["vae"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"base {base}: not an SDXL pipeline: {error!r}") from error
    _check_prompt(read, architecture, base=base)
    for name, config in read.items():
        if name.startswith("controlnet"):
            _check_controlnet(name, config, read["unet"])
        if name.startswith("controlnet_union."):
            _check_union(name, config)
    return architecture


def _check_prompt(read: Mapping[str, Config], architecture: Architecture, *, base: str) -> None:
    """The text encoders give what the UNet takes."""
    dim = read["unet"]["cross_attention_dim"]
    if dim != architecture.context_width:
        raise ConfigError(
            f"base {base}: unet says cross_attention_dim: {dim!r}, "
            f"but its text encoders give {architecture.context_width} values"
        )
    if architecture.time_ids != _TIME_IDS:
        raise ConfigError(
            f"base {base}: no SDXL base: its UNet takes {architecture.time_ids} numbers of size and crop, "
            f"not {_TIME_IDS} (the refiner takes 5); take the SDXL base"
        )
    tokens = read["text_encoder_2"]["max_position_embeddings"]
    if tokens != architecture.tokens:
        raise ConfigError(
            f"base {base}: text_encoder_2 says max_position_embeddings: {tokens}, "
            f"but text_encoder has {architecture.tokens}"
        )


def _check_controlnet(name: str, config: Config, unet: Config) -> None:
    count = len(unet["block_out_channels"])
    for key in _SHARED_WITH_UNET:
        if _comparable(config.get(key)) != _comparable(unet.get(key)):
            _refuse_controlnet(name, key, config, unet)
    for key in _EACH_BLOCK:
        if _of_blocks(config[key], count) != _of_blocks(unet[key], count):
            _refuse_controlnet(name, key, config, unet)
    heads = config["num_attention_heads"]
    if heads is not None and _of_blocks(heads, count) != _of_blocks(unet["attention_head_dim"], count):
        _refuse_controlnet(name, "num_attention_heads", config, unet)


def _check_union(name: str, config: Config) -> None:
    """What a union's transformer gives is added to the embedding of a control."""
    width = config["block_out_channels"][0]
    for key in ("num_trans_channel", "num_proj_channel"):
        if config[key] != width:
            raise ConfigError(
                f"{name}: {key} is {config[key]}, its first block has {width} channels; "
                "take a union where both are the same, as diffusers needs it"
            )


def _refuse_controlnet(name: str, key: str, config: Config, unet: Config) -> None:
    raise ConfigError(
        f"{name}: made for another base: {key} is {config.get(key)}, the base has {unet.get(key)}; "
        "take a ControlNet that was trained for this base"
    )


def _comparable(value: Any) -> Any:
    """A list for a tuple: JSON knows lists only, and defaults are tuples."""
    return [_comparable(entry) for entry in value] if isinstance(value, list | tuple) else value


def _of_blocks(value: Any, count: int) -> list[Any]:
    """One entry a block: configurations write one number where all are the same."""
    return [value] * count if isinstance(value, int) else _comparable(value)
