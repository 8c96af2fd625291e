"""LoRA files: which layers of this base their keys change, and how.

Every key is accounted for, or the file is refused. Supported layouts are those of diffusers and peft
(`unet.<layer>.lora_A.weight`), kohya and LyCORIS (`lora_unet_<layer>.lora_down.weight`) and ComfyUI
(`diffusion_model.<layer>.lora_down.weight`). Supported methods are LoRA, LoCon, DoRA, LoHa and LoKr.
Keys and shapes decide what a file is for; its metadata is only compared with them.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import LoraRefused
from intaglio.loras.adapters import PEFT_PREFIX, AdapterConfiguration, adapter_configurations
from intaglio.loras.foreign import family_by_keys, family_by_metadata, family_by_width
from intaglio.loras.layer_names import component_of_key, layer_names
from intaglio.loras.layer_shapes import Part, Shape, check_shapes
from intaglio.loras.layers import Layer
from intaglio.loras.tensor_files import TensorFile

__all__ = [
    "Component",
    "LayerTable",
    "LoraFile",
    "layer_table",
    "lora_file_from_bytes",
    "named_components",
]

Component = Literal["unet", "text_encoder", "text_encoder_2"]
Place = tuple[Component, str]
"""A layer: its component, and its name there."""
LayerTable = Mapping[Component, Mapping[str, tuple[int, ...]]]
"""Component -> layer -> shape [o, i] or [o, i, k, l], for every layer that a LoRA may change."""

_SUFFIXES: Final[Mapping[str, Part]] = {
    "lora_A.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.down.weight": "down",
    "lora_B.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "dora_scale": "dora_scale",
    "hada_w1_a": "hada_w1_a",
    "hada_w1_b": "hada_w1_b",
    "hada_w2_a": "hada_w2_a",
    "hada_w2_b": "hada_w2_b",
    "hada_t1": "hada_t1",
    "hada_t2": "hada_t2",
    "lokr_w1": "lokr_w1",
    "lokr_w1_a": "lokr_w1_a",
    "lokr_w1_b": "lokr_w1_b",
    "lokr_w2": "lokr_w2",
    "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b",
    "lokr_t2": "lokr_t2",
    "alpha": "alpha",
}
_BY_LENGTH: Final = sorted(_SUFFIXES, key=len, reverse=True)
_OLD_PROCESSOR: Final = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.")
"""In keys that diffusers wrote until 0.22."""
_FLOATS: Final = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class LoraFile:
    """What one file changes."""

    layers: Mapping[Place, Layer]
    format: str
    """`diffusers LoRA`, `kohya LoCon`, ..."""
    warnings: tuple[str, ...] = ()
    """What its owner should know, although the file can be used."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank in the file, smallest first."""
        return tuple(sorted({layer.rank for layer in self.layers.values()}))

    @property
    def nbytes(self) -> int:
        """Bytes of all values in memory."""
        return sum(layer.nbytes for layer in self.layers.values())

    @property
    def targets(self) -> dict[str, int]:
        """Component -> number of layers changed."""
        counts: dict[str, int] = {}
        for component, _ in self.layers:
            counts[component] = counts.get(component, 0) + 1
        return dict(sorted(counts.items()))


def layer_table(shapes: Mapping[Component, Mapping[str, tuple[int, ...]]]) -> LayerTable:
    """The layers among named weights (`<layer>.weight`): matrices and kernels, no norms or embeddings."""
    return {
        component: {
            name.removesuffix(".weight"): shape
            for name, shape in weights.items()
            if name.endswith(".weight") and len(shape) in (2, 4) and "embeddings." not in name
        }
        for component, weights in shapes.items()
    }


def named_components(lora: str, keys: Iterable[str]) -> frozenset[Component]:
    """The components that `keys` are for, without a look at the base.

    Raises:
        LoraRefused: the keys are those of another model.
    """
    named = tuple(keys)
    if family := family_by_keys(named):
        raise LoraRefused(lora, _for_another_base(family))
    return frozenset(cast(Component, component_of_key(key)) for key in named)


def lora_file_from_bytes(lora: str, data: bytes | mmap.mmap, *, table: LayerTable) -> LoraFile:
    """The layers that the file changes, in float32, checked against those of the base.

    Raises:
        LoraRefused: the file is damaged or for another base, has keys that name no layer of this one, or has
            values that are of another shape or not finite.
    """
    try:
        file = TensorFile(data)
    except ValueError as error:
        raise LoraRefused(lora, f"{error}; copy the file again") from error
    if not file.tensors:
        raise LoraRefused(lora, "it has no tensors")
    try:
        configurations = adapter_configurations(file.metadata)
    except ValueError as error:
        raise LoraRefused(lora, str(error)) from error
    keys = _keys_by_place(lora, file, table)
    for place, found in keys.items():
        _check_layer(lora, file, place, found, table=table)
    layers = {
        place: _layer(lora, file, place, found, configuration=configurations.get(place[0]))
        for place, found in keys.items()
    }
    _check_dora(lora, layers, configurations)
    return LoraFile(layers, _format(file, layers.values()), _warnings(file, configurations))


def _keys_by_place(lora: str, file: TensorFile, table: LayerTable) -> dict[Place, dict[Part, str]]:
    names = layer_names(table)
    keys: dict[Place, dict[Part, str]] = {}
    unknown = []
    for key in file.tensors:
        found = _place_and_part(key, names)
        if found is None:
            unknown.append(key)
            continue
        place, part = found
        if part in keys.setdefault(place, {}):
            raise LoraRefused(lora, f"gives one part of a layer twice: {keys[place][part]} and {key}")
        keys[place][part] = key
    if unknown:
        raise LoraRefused(lora, _foreign(file, table) or _unknown(unknown, file))
    return keys


def _unknown(unknown: list[str], file: TensorFile) -> str:
    shown = ", ".join(key[:120] for key in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    return (
        f"{len(unknown)} of {len(file.tensors)} keys name no layer of this base that may change, or no part"
        f" of a LoRA, LoCon, DoRA, LoHa or LoKr: {shown}"
    )


def _place_and_part(key: str, names: Mapping[str, Place]) -> tuple[Place, Part] | None:
    """The layer and the part that `key` names; None where the base has no such layer, or no method such a
    part.
    """
    plain = _OLD_PROCESSOR.sub(_plain_processor, key).replace(".default.", ".").removesuffix(".default")
    for suffix in _BY_LENGTH:
        if plain.endswith(f".{suffix}"):
            place = names.get(plain.removesuffix(f".{suffix}").removeprefix(PEFT_PREFIX))
            return None if place is None else (place, _SUFFIXES[suffix])
    return None


def _plain_processor(found: re.Match[str]) -> str:
    layer = "to_out.0" if found[1] == "to_out" else found[1]
    return f".{layer}.lora."


def _foreign(file: TensorFile, table: LayerTable) -> str | None:
    """A sentence that says what the file is for; None where nothing tells."""
    layers = table.get("unet", {}).items()
    own = next((shape[1] for layer, shape in layers if layer.endswith("attn2.to_k")), None)
    shapes = {key: tensor.shape for key, tensor in file.tensors.items()}
    family = family_by_keys(shapes) or family_by_width(shapes, own=own) or family_by_metadata(file.metadata)
    return None if family is None else _for_another_base(family)


def _for_another_base(family: str) -> str:
    return f"it is {family}; this base is an SDXL"


def _check_layer(
    lora: str, file: TensorFile, place: Place, keys: Mapping[Part, str], *, table: LayerTable
) -> None:
    """Check types and shapes of one layer; no value is read."""
    shapes: dict[Part, Shape] = {part: file.tensors[key].shape for part, key in keys.items()}
    shapes.pop("alpha", None)
    try:
        check_shapes(lora, ".".join(place), shapes, shape=table[place[0]][place[1]])
    except LoraRefused as error:
        if foreign := _foreign(file, table):
            raise LoraRefused(lora, foreign) from error
        raise
    for part, key in keys.items():
        tensor = file.tensors[key]
        if part == "alpha":
            if tensor.shape not in ((), (1,)):
                raise LoraRefused(lora, f"{key} has shape {list(tensor.shape)}; it should be one number")
        elif tensor.dtype not in _FLOATS:
            raise LoraRefused(
                lora, f"{key} has values of type {tensor.dtype}; they should be one of {', '.join(_FLOATS)}"
            )


def _layer(
    lora: str,
    file: TensorFile,
    place: Place,
    keys: Mapping[Part, str],
    *,
    configuration: AdapterConfiguration | None,
) -> Layer:
    """The layer's parts in float32, and its scale."""
    parts = {part: _floats(lora, file, key) for part, key in keys.items()}
    alpha = parts.pop("alpha", None)
    if alpha is not None or configuration is None:
        return Layer(parts, alpha=None if alpha is None else float(alpha.reshape(())))
    component, name = place
    layer = Layer(parts, scale=configuration.scale_of(name))
    configured = configuration.rank_of(name)
    if not layer.method.startswith("LoKr") and layer.rank != configured:
        raise LoraRefused(
            lora,
            f"{component}.{name} has rank {layer.rank}, and peft's configuration says {configured:g}: one of"
            " them belongs to another file",
        )
    return layer


def _floats(lora: str, file: TensorFile, key: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            values = np.array(file.read(key), np.float32)  # never a view, which would keep the whole file
    except ValueError as error:
        raise LoraRefused(lora, str(error)) from error
    if not np.isfinite(values).all():
        raise LoraRefused(
            lora,
            f"{key} has values that are not finite (NaN or infinite): the training diverged; use an earlier"
            " checkpoint",
        )
    return values


def _check_dora(
    lora: str, layers: Mapping[Place, Layer], configurations: Mapping[str, AdapterConfiguration]
) -> None:
    """A DoRA without its magnitudes would be applied as a LoRA."""
    for (component, name), layer in layers.items():
        configuration = configurations.get(component)
        if configuration is not None and configuration.dora and not layer.is_dora:
            raise LoraRefused(
                lora, f"{component}.{name} has no magnitude, and peft's configuration says DoRA"
            )


def _format(file: TensorFile, layers: Iterable[Layer]) -> str:
    if any(key.startswith(("lora_", "lycoris_")) for key in file.tensors):
        layout = "kohya"
    elif any("diffusion_model." in key for key in file.tensors):
        layout = "ComfyUI"
    else:
        layout = "diffusers"
    methods = {layer.method for layer in layers}
    return f"{layout} {'+'.join(sorted(methods))}"


def _warnings(file: TensorFile, configurations: Mapping[str, AdapterConfiguration]) -> tuple[str, ...]:
    found = []
    if family := family_by_metadata(file.metadata):
        found.append(f"its metadata says that it is {family}; its keys and shapes are this base's, and count")
    pefts = all(key.startswith(PEFT_PREFIX) for key in file.tensors)
    if pefts and not configurations and not any(key.endswith(".alpha") for key in file.tensors):
        found.append("peft wrote it, and no adapter_config.json is beside it: alpha is taken to be the rank")
    return tuple(found)
