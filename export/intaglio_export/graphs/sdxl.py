"""SDXL's networks as torch modules with the inputs and outputs of the tensor table.

Axes are those of `intaglio.contract.tensors`: `B` images, `N` rows (2B with guidance), `C` text chunks, `T`
context tokens, `h` = H/8, `w` = W/8. Weights and activations have the network's precision. The solver's
state, guidance and the time embedding stay float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from intaglio.contract.architecture import LARGEST_CLIP_SKIP
from intaglio.contract.sdxl import LORA_MERGE, network_kind
from intaglio_export.graphs.attention import attending, context_of, cross_attentions
from intaglio_export.graphs.controlnets import (
    ControlNetContext,
    ControlNetStep,
    UnionContext,
    UnionStep,
    model_input,
    residuals_and_context,
)

__all__ = ["LoraMerge", "whole_gates", "wrap_network"]


def _whole_gate(layer: Any, hidden_states: Tensor) -> Tensor:
    """GEGLU whose product is cut across an axis of its own: [N, tokens, i] -> [N, tokens, o / 2]."""
    values, gate = layer.proj(hidden_states).unflatten(-1, (2, -1)).unbind(2)
    made: Tensor = values * layer.gelu(gate)
    return made


@contextlib.contextmanager
def whole_gates() -> Iterator[None]:
    """Within the block, every GEGLU computes as `_whole_gate`: the same values and names of weights."""
    # WAR: TensorRT-RTX 1.6.1. GEGLU cuts its product along the last axis. The compiler then joins the bias
    # with the product (`bias=true` in the plan), and on an H200 the kernel leaves the bias out: the
    # miniature's UNet is 4 % off and a ControlNet 6 %, in both precisions. See docs/performance.md.
    before = GEGLU.forward
    GEGLU.forward = _whole_gate  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        GEGLU.forward = before  # type: ignore[method-assign]


class UNetContext(nn.Module):
    """The keys and values of the UNet's cross-attentions."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, prompt_embeds: Tensor) -> tuple[Tensor, ...]:
        """[N, T, embedding width] -> keys and values [N, heads, T, width] of each layer in turn."""
        return tuple(context_of(self.unet, prompt_embeds))


class UNetStep(nn.Module):
    """One solver step: UNet, classifier-free guidance and the linear update of the state."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self._layers = cross_attentions(unet)

    def forward(  # noqa: PLR0913, PLR0917  (the tensor table's inputs, in its order)
        self,
        state: Tensor,
        pooled_embeds: Tensor,
        time_ids: Tensor,
        timestep: Tensor,
        input_scale: Tensor,
        guidance_scale: Tensor,
        guidance_rescale: Tensor,
        coefficients: Tensor,
        noise: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        """The state [4, B, 4, h, w] -> the next one.

        `coefficients` is [4, 6]. `rest` has the residuals [N, h/s, w/s, c], the mid block's last, then keys
        and values.
        """
        rows, images = pooled_embeds.shape[0], state.shape[1]
        (*down, mid), context = residuals_and_context(rest, self._layers)
        with attending(self._layers, context):
            eps = self.unet(
                model_input(state, input_scale, rows).to(pooled_embeds.dtype),
                timestep,
                encoder_hidden_states=None,
                added_cond_kwargs={"text_embeds": pooled_embeds, "time_ids": time_ids},
                down_block_additional_residuals=tuple(down),
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0].float()
        # Without guidance N = B, so both are the same rows and their difference is 0: one graph serves both
        # modes.
        negative, positive = eps[:images], eps[rows - images :]
        guided = negative + guidance_scale * (positive - negative)
        eps = guided * _rescaling(guided, positive, guidance_rescale)
        terms = torch.cat([state, eps.unsqueeze(0), noise.unsqueeze(0)]).unsqueeze(0)
        # Products and a sum instead of a matmul: TensorRT may run float32 matmuls in TF32, whose 10 bits are
        # too few for the state.
        return (coefficients[:, :, None, None, None, None] * terms).sum(1)


def _deviation(values: Tensor) -> Tensor:
    """[B, ...] -> [B, 1, ...]: the standard deviation of each image's values."""
    axes = (1, 2, 3)
    centred = values - values.mean(axes, keepdim=True)
    return (centred * centred).mean(axes, keepdim=True).sqrt()


def _rescaling(guided: Tensor, positive: Tensor, rescale: Tensor) -> Tensor:
    """[B, 1, 1, 1]: the factor on `guided` that gives it the deviation of `positive`, as far as `rescale`
    (0 to 1) says.

    It is diffusers' `rescale_noise_cfg` (arXiv 2305.08891, section 3.4). The factor is exactly 1 where
    `rescale` is 0, and where both are the same, as they are without guidance.
    """
    # Added to both, so that no ratio is infinite or 0 / 0. It is too small to change one of real deviations.
    least = 1e-20
    ratio = (_deviation(positive) + least) / (_deviation(guided) + least)
    return 1 + rescale * (ratio - 1)


class TextEncoder(nn.Module):
    """CLIP's hidden states of a layer; for the encoder with a projection, also the pooled embedding."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        # WAR: with transformers 5 and float16 the exporter writes the mask of PyTorch's fused attention in
        # float32, which no runtime adds to float16.
        network.set_attn_implementation("eager")
        self.network = network

    def forward(self, input_ids: Tensor, state_rows: Tensor) -> tuple[Tensor, ...]:
        """[C, 77] token ids -> hidden states [C, 77, width] and, with a projection, [C, pooled width].

        `state_rows` [C] chooses from the hidden states of all chunks after the last layer but one, those of
        all chunks one layer earlier, and so on. 0 to C - 1 are those that SDXL is trained with.
        """
        found = self.network(input_ids, output_hidden_states=True)
        states = found.hidden_states[-2::-1][: LARGEST_CLIP_SKIP + 1]
        hidden_states = torch.cat(states).index_select(0, state_rows)
        return (hidden_states, found.text_embeds) if "text_embeds" in found else (hidden_states,)


class VaeDecoder(nn.Module):
    """Latents, already divided by the scaling factor -> pixels as diffusers' `VaeImageProcessor.postprocess`.

    Bytes take half as long to download as float16, and the host has nothing left to compute. Bytes cannot
    show that a value was not finite, so the magnitude shows it.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, latent_sample: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 4, h, w] -> pixels [B, H, W, RGB] of bytes, magnitude [B] of the decoder's output."""
        sample = self.network.decode(latent_sample.to(self.network.dtype), return_dict=False)[0].float()
        pixels = ((sample * 0.5 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        # Cast last: casting an output is all that TensorRT can do with bytes.
        return pixels.to(torch.uint8), sample.abs().mean((1, 2, 3))


class VaeEncoder(nn.Module):
    """[B, 3, H, W] in -1..1 -> [B, 8, h, w]: mean and log variance, before the scaling factor."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Tensor) -> Tensor:
        (encoded,) = self.network.encode(sample.to(self.network.dtype), return_dict=False)
        parameters: Tensor = encoded.parameters
        return parameters


class LoraMerge(nn.Module):
    """Adds LoRAs to one weight matrix [i, o], on the device of the engines. It has no weights of its own."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        # Gives the module a device and a dtype, as weights give other networks theirs; no output depends on
        # it.
        value = torch.zeros(()) if network is None else next(network.parameters()).detach()
        self.place = nn.Parameter(value)

    def forward(self, weight: Tensor, left: Tensor, right: Tensor, strengths: Tensor) -> Tensor:
        """`left` is [r, i], `right` [r, o], both float32 as is the sum."""
        return (weight.float() + (left * strengths[:, None]).t() @ right).to(weight.dtype)


_WRAPPERS: Final[Mapping[str, Callable[[nn.Module], nn.Module]]] = {
    "text_encoder": TextEncoder,
    "text_encoder_2": TextEncoder,
    "unet": UNetStep,
    "unet_context": UNetContext,
    "controlnet": ControlNetStep,
    "controlnet_context": ControlNetContext,
    "controlnet_union": UnionStep,
    "controlnet_union_context": UnionContext,
    "vae_decoder": VaeDecoder,
    "vae_encoder": VaeEncoder,
    LORA_MERGE: LoraMerge,
}


def wrap_network(name: str, model: nn.Module) -> nn.Module:
    """`model` (a diffusers or transformers network) with the inputs and outputs of the table's `name`."""
    return _WRAPPERS[network_kind(name)](model).eval()
