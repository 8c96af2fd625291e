"""SDXL's architecture with weights drawn from a seed: for measuring speed and memory, never for pictures.

`base: {architecture: sdxl-base-1.0, seed: 0}`. Speed does not depend on the values of weights, so engines
made from these are as fast as the real ones. The weights are the same on every machine. They are drawn
quickly: a prime number of normal values is drawn once, and every parameter reads them cyclically from a start
that its name decides.

Activations stay far inside float16 (65504). A matrix has torch's default gain, 1/sqrt(3 fan_in), so its
outputs are smaller than its inputs. Every branch begins with a normalisation. So a branch adds at most about
0.6 to a stream, and a stream of SDXL's 70 blocks stays below about ten (`tests/export/weights/test_seeded.py`
measures it). The UNet also denoises: it passes its normalised input to its output and adds a smaller random
part. So a trajectory ends with latents of a real range, and the VAE decodes such latents.
"""

# ruff: noqa: PLC0415  (torch is imported only when weights are drawn)

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intaglio.contract.architecture import SeededArchitecture
from intaglio.package_data import data_path
from intaglio.sampling.noise import TorchCpuGenerator

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "SCHEDULER", "Seeded", "make_network", "tokenizer_root"]

_UNET: Final[dict[str, Any]] = {  # stabilityai/stable-diffusion-xl-base-1.0 unet/config.json
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],  # the number of heads
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
_VAE: Final[dict[str, Any]] = {  # vae/config.json
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_TEXT: Final[dict[str, Any]] = {  # text_encoder/config.json: CLIP ViT-L
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
_TEXT_2: Final[dict[str, Any]] = _TEXT | {  # text_encoder_2/config.json: OpenCLIP ViT-bigG
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
_CONTROLNET_ONLY: Final[dict[str, Any]] = {
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
}
_NOT_IN_CONTROLNET: Final = ("out_channels", "sample_size", "up_block_types", "mid_block_type")
SCHEDULER: Final[Mapping[str, Any]] = {  # scheduler/scheduler_config.json
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def _controlnet_of(unet: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in unet.items() if name not in _NOT_IN_CONTROLNET} | _CONTROLNET_ONLY


def _components(
    unet: dict[str, Any], vae: dict[str, Any], *texts: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": texts[0],
        "text_encoder_2": texts[1],
        "controlnet": _controlnet_of(unet),
    }


_SMALL_TEXT: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "projection_dim": 64,
}
ARCHITECTURES: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "sdxl-base-1.0": _components(_UNET, _VAE, _TEXT, _TEXT_2),
    # The same blocks, few and narrow: for debugging the full-size path on a small machine.
    "sdxl-reduced": _components(
        _UNET
        | {
            "addition_time_embed_dim": 32,
            "attention_head_dim": [1, 2, 4],
            "block_out_channels": [64, 128, 256],
            "cross_attention_dim": 128,
            "projection_class_embeddings_input_dim": 64 + 6 * 32,
            "transformer_layers_per_block": [1, 1, 2],
        },
        _VAE | {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1},
        _TEXT | _SMALL_TEXT,
        _TEXT_2 | _SMALL_TEXT,
    ),
}
"""Configurations by architecture and component."""

_DRAWN: Final = 1_048_573
"""Normal values drawn once. It is a prime, so that no row of a matrix reads the same values as another."""
_RESIDUAL_GAIN: Final = 0.3
"""Gain of a ControlNet's output convolutions, which training starts at zero, relative to a plain layer's."""
_RANDOM_PART: Final = 0.15
"""Gain of the random part of the UNet's prediction, relative to a plain layer's.

With the Euler solver, the last latents have a standard deviation of 0.5 to 0.9.
"""
_PASSED_ON: Final = 0.94
"""Share of the UNet's input that reaches the output. With one, the trajectory would end in zeros.

An error of 1 % in every pass becomes 4.4 % of the last latents with 0.94 and 8.9 % with 0.97 (measured on the
reduced architecture with a first level of 320 channels).
"""


@dataclass(frozen=True, slots=True)
class Seeded:
    """Weights of every component of one architecture."""

    architecture: SeededArchitecture
    seed: int

    def config(self, component: str) -> Mapping[str, Any]:
        """config.json of `component`."""
        return ARCHITECTURES[self.architecture][component.partition(".")[0]]

    @property
    def scheduler(self) -> dict[str, Any]:
        """scheduler_config.json."""
        return dict(SCHEDULER)

    def __str__(self) -> str:
        return f"{self.architecture} with weights of seed {self.seed}"


def tokenizer_root() -> Path:
    """Folder with SDXL's two tokenizers, which come with intaglio."""
    return data_path("tokenizers/tokenizer").parent


def make_network(component: str, seeded: Seeded, *, dtype: torch.dtype) -> nn.Module:
    """`component` with its weights in `dtype` on the CPU; no tensor is ever held in a wider type."""
    import torch
    from accelerate import init_empty_weights  # type: ignore[import-untyped]
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from intaglio_export.weights.text_encoders import with_published_names

    kind = component.partition(".")[0]
    config = dict(seeded.config(component))
    network: Any
    with init_empty_weights(include_buffers=False):
        match kind:
            case "text_encoder":
                encoder = CLIPTextModel(CLIPTextConfig(**config))  # type: ignore[no-untyped-call]
                network = with_published_names(encoder)
            case "text_encoder_2":
                network = CLIPTextModelWithProjection(CLIPTextConfig(**config))  # type: ignore[no-untyped-call]
            case _:
                classes: dict[str, Any] = {
                    "unet": UNet2DConditionModel,
                    "vae": AutoencoderKL,
                    "controlnet": ControlNetModel,
                }
                network = classes[kind].from_config(config)
    # torch draws 16 values at a time, so the count that is asked for must be a multiple of 16.
    drawn = torch.from_numpy(TorchCpuGenerator(seeded.seed).randn((_DRAWN + 3,)))[:_DRAWN]
    for name, parameter in list(network.named_parameters()):
        values = _values(f"{component}.{name}", parameter.shape, drawn, dtype)
        owner, _, own = name.rpartition(".")
        network.get_submodule(owner).register_parameter(own, torch.nn.Parameter(values, requires_grad=False))
    if kind == "unet":
        _pass_input_on(network)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_floating_point():
            owner, _, own = name.rpartition(".")
            network.get_submodule(owner)._buffers[own] = buffer.to(dtype)
    made: nn.Module = network.eval()
    return made


def _values(name: str, shape: torch.Size, drawn: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of the parameter `name`, read from a start of its own and scaled as the module's docstring says.

    They are scaled and rounded before they are repeated. For a network of gigabytes that is one pass over
    memory instead of five.
    """
    import torch

    count = shape.numel()
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % len(drawn)
    read = drawn[start : start + count] if start + count <= len(drawn) else drawn.roll(-start)[:count]
    values = _scaled(name, shape, read).to(dtype)
    whole = torch.empty(count, dtype=dtype)
    for begin in range(0, count, len(values)):
        whole[begin : begin + len(values)] = values[: count - begin]
    return whole.reshape(shape)


def _scaled(name: str, shape: torch.Size, values: Tensor) -> Tensor:
    if len(shape) == 1:
        return 1 + 0.05 * values if name.endswith(".weight") else 0.02 * values
    if "_embedding.weight" in name:
        return 0.02 * values
    gain = _RESIDUAL_GAIN if ".controlnet_down_blocks." in name or ".controlnet_mid_block." in name else 1.0
    return values * (gain / math.sqrt(3 * shape[1:].numel()))


def _pass_input_on(unet: Any) -> None:
    """Lead the latents past all blocks to the output, once as they are and once negated.

    The output adds both: silu(x) - silu(-x) is x.
    """
    import torch

    latents = unet.config.in_channels
    last = unet.up_blocks[-1].resnets[-1]
    width = unet.conv_in.out_channels
    lanes = 2 * latents
    group = width // unet.config.norm_num_groups
    # No other channel shares a group with the lanes, or their normalisation would depend on that channel.
    whole = -(-lanes // group) * group
    middle = unet.conv_in.kernel_size[0] // 2
    # The first channel of the skip connection in the input of the last block.
    skip = last.conv_shortcut.in_channels - width
    with torch.no_grad():
        for layer in (unet.conv_in, last.conv2, last.conv_shortcut):
            layer.weight[:whole] = 0
            layer.bias[:whole] = 0
        unet.conv_norm_out.weight[:whole] = 1
        unet.conv_norm_out.bias[:whole] = 0
        unet.conv_out.weight *= _RANDOM_PART
        unet.conv_out.weight[:, :whole] = 0
        for channel in range(latents):
            for lane, sign in ((channel, 1), (latents + channel, -1)):
                first = lane // group * group
                # Zeros beside the lanes lower what the normalisation divides by.
                filled = (min(first + group, lanes) - first) / group
                unet.conv_in.weight[lane, channel, middle, middle] = sign
                last.conv_shortcut.weight[lane, skip + lane, 0, 0] = 1
                unet.conv_out.weight[channel, lane, middle, middle] = sign * _PASSED_ON * math.sqrt(filled)
