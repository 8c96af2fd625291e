"""Other graphs of the same UNet, each built for one profile and timed: what to export is decided by the card, not by taste.

    python -m benchmarks.variants CASE.json WORK_FOLDER [--only sdpa,query]
Every variant computes the same function; the relative error to the first one is printed beside its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from diffusers.models.attention_processor import AttnProcessor2_0
from rich.console import Console

from benchmarks.case import Case
from benchmarks.engines import time_passes
from benchmarks.results import write_part
from intaglio.engine import Array, allocate_tensors
from intaglio_export.compile import ENGINE_FILES, CompileJob, compile_network, resolve_platform
from intaglio_export.graphs import example_inputs, export_network
from intaglio_export.plan import ONNX_FILE, Plan
from intaglio_export.stages import StageStore
from intaglio_export.verify import open_verification_backend, relative_error

_NETWORK: Final = "unet"


class QueryScaled:
    """Attention written out, its scale applied to the queries where they are made.

    The tracer writes `scaled_dot_product_attention` with the root of the scale on queries and on keys, behind the transpositions, where
    a compiler may not reach them from the matrix product. 1/8, SDXL's scale, is exact in float16.
    """

    def __call__(self, attention: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any) -> Any:
        """[N, tokens, C] -> [N, tokens, C]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = attention.heads
        width = attention.to_q.out_features // heads
        rows = hidden_states.shape[0]
        queries = (attention.to_q(hidden_states) * width**-0.5).view(rows, -1, heads, width).transpose(1, 2)
        keys = attention.to_k(context).view(rows, -1, heads, width).permute(0, 2, 3, 1)
        values = attention.to_v(context).view(rows, -1, heads, width).transpose(1, 2)
        mixed = (queries @ keys).softmax(-1) @ values
        return attention.to_out[0](mixed.transpose(1, 2).reshape(rows, -1, heads * width))


VARIANTS: Final[Mapping[str, Callable[[], Any]]] = {"sdpa": AttnProcessor2_0, "query": QueryScaled}
"""Attention processor by name; the first is what is exported."""


def main(case: Path, work: Path, only: Annotated[str, typer.Option(help="Variants in a list with commas, or all.")] = "all") -> None:
    """Build and time each variant for the first size with guidance."""
    deployment, console = Case.read(case).deployment, Console(highlight=False)
    platform = resolve_platform(deployment)
    plan = Plan(deployment, platform, StageStore(deployment.build / ".stages"))
    profile = plan.profiles(_NETWORK)[0]
    found: dict[str, Any] = {}
    first: Array | None = None
    for name in VARIANTS if only == "all" else only.split(","):
        folder = work / "variants" / name
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        network = plan.network(_NETWORK)
        network.set_attn_processor(VARIANTS[name]())
        export_network(network, _NETWORK, folder / ONNX_FILE, architecture=plan.architecture, precision=deployment.precision)
        exported = time.perf_counter() - started
        job = CompileJob(
            onnx=folder / ONNX_FILE, network=plan.spec(_NETWORK), profiles=(profile,), precision=deployment.precision,
            timing_cache=folder / "timing.cache",
        )  # fmt: skip
        compile_network(job, folder, platform=platform)
        built = time.perf_counter() - started - exported
        with open_verification_backend(platform, threads=deployment.execution.threads) as backend:
            engine = backend.load(job.network, folder / ENGINE_FILES[platform.runtime], precision=deployment.precision)
            sizes = {axis: size.optimum for axis, size in profile.axes.items()}
            arrays = allocate_tensors(backend, engine, sizes)
            for tensor, values in example_inputs(job.network, sizes, precision=deployment.precision, seed=1).items():
                backend.upload(arrays[tensor], values.numpy())
            taken = time_passes(backend, engine.bind(sizes, arrays))
            output = backend.download(arrays[job.network.outputs[0].name])
            engine.close()
        first = output if first is None else first
        found[name] = {"pass": taken, "export_seconds": exported, "build_seconds": built, "error": relative_error(output, first)}
        write_part(work, "variants", {"profile": profile.name, "runtime": platform.runtime, "variants": found})
        console.print(f"{name}: {1000 * taken['median']:.2f} ms, built in {built:.0f} s, relative error {found[name]['error']:.2g}")
        if not np.isfinite(output).all():
            raise ValueError(f"{name}: values that are not finite")


if __name__ == "__main__":
    typer.run(main)
