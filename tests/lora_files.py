"""Random LoRA files of every method and layout, and the change that each should make, in float64.

The formulas are written here once more, from the papers and from LyCORIS, and share no code with the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

Change = Callable[[Any, float], Any]
"""(pristine weights in float64, weight) -> what is added to them."""
METHODS = (
    "LoRA",
    "LoCon with a core",
    "LoHa",
    "LoHa with cores",
    "LoKr",
    "LoKr factored",
    "LoKr twice factored",
)
MAGNITUDES = ("none", "peft", "outputs", "inputs")
LAYOUTS = ("diffusers", "peft", "kohya", "ComfyUI")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass
class RandomLayer:
    """How one layer of a file is to be made."""

    layer: str
    shape: tuple[int, ...]
    method: str
    magnitude: str
    rank: int
    alpha: float | None


@dataclass
class RandomFile:
    """A file and what it should do."""

    layout: str
    dtype: torch.dtype
    seed: int
    tensors: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    changes: dict[str, Change] = field(default_factory=dict, repr=False)
    """By layer."""

    def __post_init__(self) -> None:
        self._random = torch.Generator().manual_seed(self.seed)

    def write(self, path: Path) -> Path:
        safetensors.torch.save_file(self.tensors, path)
        return path

    def add(self, asked: RandomLayer, *, stability: Mapping[str, str]) -> None:
        """One more layer."""
        stem = self._stem(asked.layer, stability)
        update, factored = self._update(asked, stem)
        if asked.alpha is not None:
            self.tensors[f"{stem}.alpha"] = torch.tensor(asked.alpha)
        scale = asked.alpha / asked.rank if asked.alpha is not None and factored else 1.0
        delta = scale * update.reshape(asked.shape)
        self.changes[asked.layer] = self._with_magnitude(asked, stem, delta)

    def _stem(self, layer: str, stability: Mapping[str, str]) -> str:
        match self.layout:
            case "diffusers":
                return f"unet.{layer}"
            case "peft":
                return f"base_model.model.{layer}"
            case "kohya":
                name = stability[layer] if self.seed % 2 else layer
                return f"lora_unet_{name.replace('.', '_')}"
            case _:
                return f"diffusion_model.{stability[layer]}"

    def _part(self, name: str, *shape: int, size: float = 1.0) -> Any:
        """A random tensor of the file; its values in float64 as they were rounded."""
        made = (size * torch.randn(shape, generator=self._random)).to(self.dtype)
        self.tensors[name] = made
        return made.double().numpy()

    def _update(self, asked: RandomLayer, stem: str) -> tuple[Any, bool]:
        outputs, inputs, kernel, r = asked.shape[0], asked.shape[1], asked.shape[2:], asked.rank
        match asked.method:
            case "LoRA":
                short = self.layout in ("diffusers", "peft")
                down_name, up_name = ("lora_A", "lora_B") if short else ("lora_down", "lora_up")
                down = self._part(f"{stem}.{down_name}.weight", r, inputs, *kernel)
                up = self._part(f"{stem}.{up_name}.weight", outputs, r, *(1 for _ in kernel))
                return np.einsum("or,r...->o...", up.reshape(outputs, r), down), True
            case "LoCon with a core":
                down = self._part(f"{stem}.lora_down.weight", r, inputs, 1, 1)
                core = self._part(f"{stem}.lora_mid.weight", r, r, *kernel)
                up = self._part(f"{stem}.lora_up.weight", outputs, r, 1, 1)
                return np.einsum("oa,abkl,bi->oikl", up[:, :, 0, 0], core, down[:, :, 0, 0]), True
            case "LoHa":
                flat = int(np.prod(asked.shape[1:]))
                pairs = [
                    self._part(f"{stem}.hada_w{n}_a", outputs, r) @ self._part(f"{stem}.hada_w{n}_b", r, flat)
                    for n in (1, 2)
                ]
                return pairs[0] * pairs[1], True
            case "LoHa with cores":
                factors = []
                for n in (1, 2):
                    first = self._part(f"{stem}.hada_w{n}_a", r, outputs)
                    second = self._part(f"{stem}.hada_w{n}_b", r, inputs)
                    core = self._part(f"{stem}.hada_t{n}", r, r, *kernel)
                    factors.append(np.einsum("abkl,ao,bi->oikl", core, first, second))
                return factors[0] * factors[1], True
            case _:
                return self._kronecker(asked, stem)

    def _kronecker(self, asked: RandomLayer, stem: str) -> tuple[Any, bool]:
        """Sides of the first matrix are 2."""
        outputs, inputs, kernel, r = asked.shape[0], asked.shape[1], asked.shape[2:], asked.rank
        if asked.method == "LoKr twice factored":
            left = self._part(f"{stem}.lokr_w1_a", 2, r) @ self._part(f"{stem}.lokr_w1_b", r, 2)
        else:
            left = self._part(f"{stem}.lokr_w1", 2, 2)
        small = (outputs // 2, inputs // 2, *kernel)
        if asked.method == "LoKr":
            right = self._part(f"{stem}.lokr_w2", *small)
        elif kernel and self.seed % 2:
            first = self._part(f"{stem}.lokr_w2_a", r, small[0])
            second = self._part(f"{stem}.lokr_w2_b", r, small[1])
            core = self._part(f"{stem}.lokr_t2", r, r, *kernel)
            right = np.einsum("abkl,ao,bi->oikl", core, first, second)
        else:
            flat = int(np.prod(small[1:]))
            first = self._part(f"{stem}.lokr_w2_a", small[0], r)
            right = (first @ self._part(f"{stem}.lokr_w2_b", r, flat)).reshape(small)
        made = np.einsum("ab,cd...->acbd...", left, right)
        return made.reshape(asked.shape), asked.method != "LoKr"

    def _with_magnitude(self, asked: RandomLayer, stem: str, delta: Any) -> Change:
        if asked.magnitude == "none":
            return lambda pristine, weight: weight * delta
        axis = 1 if asked.magnitude == "inputs" else 0
        count, ones = asked.shape[axis], [1] * len(asked.shape)
        shape = [count if other == axis else 1 for other in range(len(ones))]
        name = f"{stem}.dora_scale"
        if asked.magnitude == "peft":  # one axis for a matrix, [1, o, 1, 1] for a kernel
            name = f"{stem}.lora_magnitude_vector"
            shape = [1, count, 1, 1] if len(ones) == 4 else [count]
        norms = np.abs(self._part(name, *shape, size=3.0)).reshape(-1)
        self.tensors[name] = self.tensors[name].abs()

        def change(pristine: Any, weight: float) -> Any:
            lines = np.moveaxis(pristine + weight * delta, axis, 0)
            renormed = np.stack(
                [n * line / np.linalg.norm(line) for n, line in zip(norms, lines, strict=True)]
            )
            return np.moveaxis(renormed, 0, axis) - pristine

        return change
