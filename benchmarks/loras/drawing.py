"""Images and steps of one build in this process, all of one prompt and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.loras.files import LORAS, config_of
from benchmarks.measuring.timing import spread
from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type, string_tensor
from intaglio.engines.interface import Array
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

__all__ = ["PROMPT", "Drawing", "LoraSet", "opened", "served_loras"]

LoraSet = tuple[ResolvedLora, ...]
PROMPT: Final = "a person dancing on a beach"
_SEED: Final = 0
_STEP_RUNS: Final = 5
_NOT_FOR_DIFFUSE: Final = ("metadata", "output_format", "loras")


class Drawing:
    """Draws with the stages of one build."""

    def __init__(self, diffuse: Diffuse, preprocess: Preprocess) -> None:
        self.diffuse = diffuse
        self._preprocess = preprocess

    def __call__(
        self, steps: int, *, wanted: Sequence[str] = ("state", "timings"), loras: LoraSet | None = None
    ) -> dict[str, Array]:
        """The tensors `wanted` of one image; `loras` None takes the set that is resident."""
        arrays = dict(self._preprocess(_request(steps)))
        for name in _NOT_FOR_DIFFUSE:
            arrays.pop(name, None)
        if loras is None and self.diffuse.loras is not None:
            loras = self.diffuse.loras.resident
        arrays["loras"] = string_tensor(json.dumps([one.model_dump() for one in loras or ()]))
        return dict(self.diffuse(arrays, wanted=wanted))

    def denoise_seconds(self, steps: int) -> float:
        """Seconds of the steps alone."""
        return float(json.loads(self(steps)["timings"][0])["denoise"])

    def step(self, steps: int) -> dict[str, float]:
        """Seconds of one step, from runs of two lengths: what is done once an image cancels out."""
        taken = []
        for _ in range(_STEP_RUNS):
            long = self.denoise_seconds(1 + steps)
            short = self.denoise_seconds(1)
            taken.append((long - short) / steps)
        return spread(taken)


def _request(steps: int) -> dict[str, Any]:
    """The tensors of a request."""
    values: dict[str, Any] = {"prompt": PROMPT.encode(), "seed": _SEED, "steps": steps}
    tensors = {}
    for name, value in values.items():
        tensors[name] = np.empty(1, numpy_type(SDXL.input(name).datatype))
        tensors[name][:] = value
    return tensors


@contextmanager
def opened(work: Path, name: str) -> Iterator[tuple[Deployment, BuildManifest, Drawing]]:
    """The deployment `name` of the work folder and its stages, warm."""
    deployment = load_deployment(config_of(work, name))
    folder = deployment.build_folder
    manifest = read_manifest(folder)
    with Diffuse(manifest, folder) as diffuse, Preprocess(manifest, folder) as preprocess:
        diffuse.warm_up()
        yield deployment, manifest, Drawing(diffuse, preprocess)


def served_loras(deployment: Deployment) -> LoraSet:
    """Every LoRA that the build serves, at weight 1."""
    served = LoraStore(deployment.build_folder / LORAS_FOLDER).current().loras
    return tuple(ResolvedLora(id=name, sha256=served[name].sha256, weight=1.0) for name in LORAS)
