"""The architecture of a pipeline from the configurations of its components, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from intaglio.contract.architecture import Architecture, architecture_from_configs
from intaglio.errors import ConfigError

__all__ = ["architecture_of"]

_SHARED_WITH_UNET: Final = (
    "attention_head_dim",
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "projection_class_embeddings_input_dim",
)
"""Values that a ControlNet must share with its UNet."""


def architecture_of(configs: Mapping[str, Mapping[str, Any]], *, base: str) -> Architecture:
    """The shapes of a pipeline; `configs` are config.json by component, `controlnet.<id>` included.

    Raises:
        ConfigError: the configurations are not SDXL's, or a ControlNet is made for another UNet.
    """
    try:
        unet = configs["unet"]
        embedding = unet.get("addition_embed_type")
        if embedding != "text_time":
            raise ConfigError(
                f"base {base}: not an SDXL UNet: addition_embed_type is {embedding!r}, not 'text_time'"
            )
        architecture = architecture_from_configs(
            unet,
            text_encoder=configs["text_encoder"],
            text_encoder_2=configs["text_encoder_2"],
            vae=configs["vae"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"base {base}: not an SDXL pipeline: {error!r}") from error
    for name, config in configs.items():
        if name.startswith("controlnet."):
            _check_controlnet(name, config, unet)
    return architecture


def _check_controlnet(name: str, config: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    for key in _SHARED_WITH_UNET:
        if config.get(key) != unet.get(key):
            raise ConfigError(
                f"{name}: made for another base: {key} is {config.get(key)}, the base has {unet.get(key)}"
            )
