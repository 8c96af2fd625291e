"""ONNX graphs of every network, as `intaglio.contract.tensors` describes them.

Axes are those of the table: `B` images, `N` rows (2B with guidance), `T` context tokens, `h` = H/8, `w` =
W/8. Every graph is dynamic in every named axis, so ONNX Runtime runs any size from it and TensorRT fixes the
sizes of each profile. Weights and activations have the network's precision; the solver's state, guidance and
time embedding stay float32.
"""

# ruff: noqa: PLC0415  (optimum is slow to import and only some networks need it)

from __future__ import annotations

import contextlib
import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from intaglio.contract.architecture import Architecture
from intaglio.contract.sdxl import LORA_MERGE, axis_sizes, context_keys, network_kind, network_spec
from intaglio.contract.tensors import NetworkSpec, Precision
from intaglio_export.graphs.onnx_weights import LARGEST_PROTOBUF, attach_weights
from intaglio_export.weights.vae_range import real_range_latents

__all__ = [
    "OPSET",
    "TORCH_DTYPES",
    "LoraMerge",
    "cross_attentions",
    "example_inputs",
    "export_network",
    "wrap_network",
]

OPSET: Final = 18
TORCH_DTYPES: Final[Mapping[Precision, torch.dtype]] = {"fp32": torch.float32, "fp16": torch.float16}
TRACED_LATENTS: Final = (10, 14)
"""(h, w) of the example. Halving twice rounds, which makes diffusers' upsamplers take their size from the
skip tensor, as any size needs.
"""
TRACED_MATRIX: Final = {"i": 6, "o": 10, "r": 4}


def cross_attentions(network: nn.Module) -> list[nn.Module]:
    """The layers of a UNet or a ControlNet that attend to the prompt, in the order in which a pass comes to
    them.
    """
    blocks = [
        network.get_submodule(name)
        for name in ("down_blocks", "mid_block", "up_blocks")
        if hasattr(network, name)
    ]
    return [layer for block in blocks for name, layer in block.named_modules() if name.endswith(".attn2")]


def _keys_and_values(layer: Any, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """[N, heads, T, width] each, of the prompt's embeddings [N, T, C]; the keys with attention's scale in
    them.
    """
    keys, values = (
        project(prompt).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for project in (layer.to_k, layer.to_v)
    )
    return keys * layer.scale, values


class _GivenContext:
    """A processor of diffusers' attention to which keys and values are given: they do not change from step to
    step.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys = keys
        self._values = values

    def __call__(
        self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        """[N, tokens, C] -> [N, tokens, C]."""
        queries = layer.to_q(hidden_states).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        mixed = (queries @ self._keys.transpose(2, 3)).softmax(-1) @ self._values
        return layer.to_out[0](mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@contextlib.contextmanager
def _attending(layers: Sequence[Any], context: Sequence[Tensor]) -> Iterator[None]:
    """`layers` attend to `context` (keys and values of each in turn) inside; the network is as it was
    afterwards.
    """
    before = [layer.processor for layer in layers]
    try:
        for layer, keys, values in zip(layers, context[::2], context[1::2], strict=True):
            layer.processor = _GivenContext(keys, values)
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor


class UNetContext(nn.Module):
    """The keys and values of the UNet's cross-attentions."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, prompt_embeds: Tensor) -> tuple[Tensor, ...]:
        """[N, T, C] -> keys and values of each layer in turn."""
        return tuple(
            values
            for layer in cross_attentions(self.unet)
            for values in _keys_and_values(layer, prompt_embeds)
        )


class ControlNetContext(nn.Module):
    """The embedding of the control image; the keys and values of the ControlNet's cross-attentions."""

    def __init__(self, controlnet: nn.Module) -> None:
        super().__init__()
        self.controlnet = controlnet

    def forward(self, prompt_embeds: Tensor, control_image: Tensor) -> tuple[Tensor, ...]:
        """`control_image` is [B, H, W, RGB] of bytes; its embedding [B, h, w, c]."""
        image = (
            control_image.float().permute(0, 3, 1, 2) / 255
        )  # cast first: TensorRT does nothing else with bytes
        embedding = self.controlnet.get_submodule("controlnet_cond_embedding")(image.to(prompt_embeds.dtype))
        context = (
            values
            for layer in cross_attentions(self.controlnet)
            for values in _keys_and_values(layer, prompt_embeds)
        )
        return embedding.permute(0, 2, 3, 1), *context


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
        coefficients: Tensor,
        noise: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        """[4, B, 4, h, w] state -> the next one. `coefficients` is [4, 6]; `rest` are the residuals [N, h/s,
        w/s, c], the mid block's last, then keys and values.
        """
        rows, images = pooled_embeds.shape[0], state.shape[1]
        (*down, mid), context = _residuals_and_context(rest, self._layers)
        with _attending(self._layers, context):
            eps = self.unet(
                _model_input(state, input_scale, rows).to(pooled_embeds.dtype),
                timestep,
                encoder_hidden_states=None,
                added_cond_kwargs={"text_embeds": pooled_embeds, "time_ids": time_ids},
                down_block_additional_residuals=tuple(down),
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0].float()
        # Without guidance N = B and both are the same rows: their difference is 0, so one graph serves both
        # modes.
        negative, positive = eps[:images], eps[rows - images :]
        eps = negative + guidance_scale * (positive - negative)
        terms = torch.cat([state, eps.unsqueeze(0), noise.unsqueeze(0)]).unsqueeze(0)
        # Products and a sum, not a matmul: TensorRT may run float32 matmuls in TF32, whose 10 bits are too
        # few for the state.
        return (coefficients[:, :, None, None, None, None] * terms).sum(1)


class ControlNetStep(nn.Module):
    """Residuals so far plus `conditioning_scale` times this ControlNet's own."""

    def __init__(self, controlnet: nn.Module) -> None:
        super().__init__()
        # The ControlNet proper (a shallow copy) is given the embedding of the control image.
        self.controlnet = copy.copy(controlnet)
        self.controlnet._modules = {**controlnet._modules, "controlnet_cond_embedding": nn.Identity()}
        self._layers = cross_attentions(controlnet)

    def forward(  # noqa: PLR0913, PLR0917  (the tensor table's inputs, in its order)
        self,
        state: Tensor,
        pooled_embeds: Tensor,
        time_ids: Tensor,
        timestep: Tensor,
        input_scale: Tensor,
        control_embedding: Tensor,
        conditioning_scale: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        """`control_embedding` is [B, h, w, c]; `rest` as for the UNet, residuals out as in."""
        rows, dtype = pooled_embeds.shape[0], pooled_embeds.dtype
        residuals, context = _residuals_and_context(rest, self._layers)
        with _attending(self._layers, context):
            down, mid = self.controlnet(
                _model_input(state, input_scale, rows).to(dtype),
                timestep,
                encoder_hidden_states=None,
                controlnet_cond=_repeated(control_embedding.permute(0, 3, 1, 2), rows),
                added_cond_kwargs={"text_embeds": pooled_embeds, "time_ids": time_ids},
                return_dict=False,
            )
        scale = conditioning_scale.to(dtype)
        sums = (before + scale * own for before, own in zip(residuals, (*down, mid), strict=True))
        return tuple(values.permute(0, 2, 3, 1) for values in sums)


def _residuals_and_context(
    rest: Sequence[Tensor], layers: Sequence[Any]
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """Residuals [N, c, h/s, w/s], and the keys and values of `layers`, which come behind them."""
    end = len(rest) - 2 * len(layers)
    return [values.permute(0, 3, 1, 2) for values in rest[:end]], rest[end:]


class _Whole(nn.Module):
    """A network as it is, with the configuration that optimum's exporter reads."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.config = network.config


class TextEncoder(_Whole):
    """CLIP's penultimate hidden states and, of the encoder with a projection, the pooled embedding."""

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """[C, 77] token ids -> `hidden_states` [C, 77, width] and `text_embeds` [C, pooled width]."""
        found = self.network(input_ids, output_hidden_states=True)
        outputs = {"hidden_states": found.hidden_states[-2]}
        if "text_embeds" in found:
            outputs["text_embeds"] = found.text_embeds
        return outputs


class VaeDecoder(_Whole):
    """[B, 4, h, w] latents, already divided by the scaling factor -> pixels as diffusers'
    `VaeImageProcessor.postprocess` makes them.

    Bytes are half of what float16 would be to download, and nothing is left for the host to compute. They
    cannot say that a value was not finite: `magnitude` does.
    """

    def forward(self, latent_sample: Tensor) -> dict[str, Tensor]:
        """`pixels` [B, H, W, RGB] of bytes, `magnitude` [B]: the mean of the decoder's own output without
        signs.
        """
        sample = self.network.decode(latent_sample.to(self.network.dtype), return_dict=False)[0].float()
        pixels = ((sample * 0.5 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        # Cast last: TensorRT makes bytes of an output and does nothing else with them.
        return {"pixels": pixels.to(torch.uint8), "magnitude": sample.abs().mean((1, 2, 3))}


class VaeEncoder(_Whole):
    """[B, 3, H, W] in -1..1 -> [B, 8, h, w]: mean and log variance, before the scaling factor."""

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        return {
            "latent_parameters": self.network.encode(sample.to(self.network.dtype), return_dict=False)[
                0
            ].parameters
        }


class LoraMerge(nn.Module):
    """[i, o] weights with LoRAs added; the network that computes them where the engines are. It has no
    weights of its own.
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        # Says where it computes and in which precision, as other networks' weights do; no output depends on
        # it.
        self.place = nn.Parameter(torch.zeros(()) if network is None else next(network.parameters()).detach())

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
    "vae_decoder": VaeDecoder,
    "vae_encoder": VaeEncoder,
    LORA_MERGE: LoraMerge,
}


def _repeated(values: Tensor, rows: Tensor | int) -> Tensor:
    """[B, ...] -> [N, ...]: twice with guidance, once without."""
    return torch.cat([values, values])[:rows]


def _model_input(state: Tensor, input_scale: Tensor, rows: Tensor | int) -> Tensor:
    return _repeated(state[0] * input_scale, rows)


def wrap_network(name: str, model: nn.Module) -> nn.Module:
    """`model` (a diffusers or transformers network) with the inputs and outputs of the table's `name`."""
    return _WRAPPERS[network_kind(name)](model).eval()


def example_inputs(
    network: NetworkSpec, sizes: Mapping[str, int], *, precision: Precision, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs of plausible size for every tensor of `network`, the same for the same seed.

    Scalars take mid-trajectory values; token ids stay below CLIP's special tokens, but for the end token that
    pooling looks for.
    """
    generator = torch.Generator().manual_seed(seed)
    keys = {context_keys(index) for index in range(len(network.inputs))}
    fixed = {"timestep": 500.0, "input_scale": 0.5, "guidance_scale": 5.0, "conditioning_scale": 0.75}
    inputs = {}
    for spec in network.inputs:
        shape = spec.shape(sizes)
        if spec.name == "input_ids":
            tokens = torch.randint(0, 40000, shape, generator=generator)
            tokens[:, 0], tokens[:, shape[1] // 2 :] = 49406, 49407
            inputs[spec.name] = tokens
        elif spec.name in fixed:
            inputs[spec.name] = torch.full(shape, fixed[spec.name])
        elif spec.name == "time_ids":
            inputs[spec.name] = (
                torch.tensor([1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]).expand(shape).contiguous()
            )
        elif spec.name == "latent_sample":
            inputs[spec.name] = real_range_latents(shape, seed=seed)
        elif spec.name == "control_image":
            inputs[spec.name] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        elif spec.name == "coefficients":
            inputs[spec.name] = 0.5 * torch.randn(shape, generator=generator)
        else:
            scale = 0.1 if "residual" in spec.name else shape[-1] ** -0.5 if spec.name in keys else 1.0
            dtype = TORCH_DTYPES[precision] if spec.dtype == "compute" else torch.float32
            inputs[spec.name] = (scale * torch.randn(shape, generator=generator)).to(dtype)
    return inputs


def export_network(
    model: nn.Module, name: str, path: Path, *, architecture: Architecture, precision: Precision
) -> None:
    """Write the ONNX graph of `model` (its weights already in `precision`, on any device) as the table's
    network `name` to `path`.

    Weights of 2 GiB and more go to `<path>.data` beside it.
    """
    network = network_spec(name, architecture)
    wrapper = wrap_network(name, model)
    h, w = TRACED_LATENTS
    scale = architecture.vae_scale
    sizes = TRACED_MATRIX | axis_sizes(architecture, width=w * scale, height=h * scale, images=2)
    device = next(model.parameters()).device
    inputs = {
        name: value.to(device) for name, value in example_inputs(network, sizes, precision=precision).items()
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # tracing warns of every Python comparison in diffusers; verification judges the result
        if isinstance(wrapper, _Whole):
            _export_with_optimum(wrapper, network, inputs, path)
        else:
            _export_traced(wrapper, network, inputs, path)


def _export_traced(
    wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Tensor], path: Path
) -> None:
    torch.onnx.export(
        wrapper,
        tuple(inputs[spec.name] for spec in network.inputs),
        str(path),
        input_names=[spec.name for spec in network.inputs],
        output_names=[spec.name for spec in network.outputs],
        dynamic_axes=_dynamic_axes(network),
        opset_version=OPSET,
        # Weights follow one by one: the tracer would hold SDXL's three times. It cannot fold what it has not,
        # so that follows too.
        export_params=False,
        do_constant_folding=False,
        # The dynamo exporter specialises on the rounding of odd sizes; the tracer keeps it as arithmetic on
        # shapes.
        dynamo=False,
    )
    attach_weights(path, dict(wrapper.named_parameters()) | dict(wrapper.named_buffers()))


def _dynamic_axes(network: NetworkSpec) -> dict[str, dict[int, str]]:
    return {spec.name: spec.dynamic_axes for spec in network.tensors if spec.dynamic_axes}


def _export_with_optimum(
    wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Tensor], path: Path
) -> None:
    """optimum's exporter with the table's names: it patches CLIP's attention mask, which the tracer cannot
    follow.
    """
    from optimum.exporters.onnx.convert import export_pytorch  # type: ignore[import-untyped]
    from optimum.exporters.onnx.model_configs import CLIPTextOnnxConfig, VaeDecoderOnnxConfig  # type: ignore[import-untyped]

    axes = _dynamic_axes(network)
    parent: Any = CLIPTextOnnxConfig if "input_ids" in inputs else VaeDecoderOnnxConfig

    class TableConfig(parent):  # type: ignore[misc]
        """The table's tensors in optimum's terms."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {spec.name: axes[spec.name] for spec in network.inputs}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {spec.name: axes[spec.name] for spec in network.outputs}

        def generate_dummy_inputs(self, **_: Any) -> dict[str, Tensor]:
            return dict(inputs)

    config = TableConfig(wrapper.config, task="feature-extraction")
    export_pytorch(wrapper, config, opset=OPSET, output=path, device=str(next(wrapper.parameters()).device))
    _gather_weights(path, wrapper)


def _gather_weights(path: Path, wrapper: nn.Module) -> None:
    """Name the weights, and keep those of a large graph in one file beside it; whatever the exporter left is
    removed.
    """
    left = {item for item in path.parent.iterdir() if item != path}
    model = onnx.load(path)
    _name_weights(model, wrapper)
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_PROTOBUF
    path.unlink()
    for item in left:
        item.unlink()
    onnx.save(
        model,
        path,
        save_as_external_data=large,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
        size_threshold=1024,
    )


def _name_weights(model: onnx.ModelProto, wrapper: nn.Module) -> None:
    """Give the matrices that optimum transposed and numbered the parameter's name with `.T`: LoRAs are put on
    by name.
    """
    digests = {
        hashlib.sha256(parameter.detach().cpu().t().contiguous().numpy().tobytes()).digest(): f"{name}.T"
        for name, parameter in wrapper.named_parameters()
        if parameter.ndim == 2
    }
    taken = {tensor.name for tensor in model.graph.initializer}
    renamed = {}
    for tensor in model.graph.initializer:
        name = (
            digests.get(hashlib.sha256(tensor.raw_data).digest())
            if tensor.name.startswith("onnx::")
            else None
        )
        if name is not None and name not in taken:
            taken.add(name)
            renamed[tensor.name] = name
            tensor.name = name
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
