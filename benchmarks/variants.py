"""Other graphs of the same UNet, each built for one profile and timed: what to export is decided by the card, not by taste.

    python -m benchmarks.variants CASE.json WORK_FOLDER [--only sdpa,query]
Every variant computes the same function; the relative error to the first one is printed beside its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from diffusers.models.attention_processor import AttnProcessor2_0
from rich.console import Console

from benchmarks.case import Case
from benchmarks.graphs import Workbench
from benchmarks.results import write_part
from intaglio.engine import Array
from intaglio_export.verify import relative_error


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
    bench, console = Workbench(Case.read(case).deployment), Console(highlight=False)
    found: dict[str, Any] = {}
    first: Array | None = None
    for name in VARIANTS if only == "all" else only.split(","):
        network = bench.network()
        network.set_attn_processor(VARIANTS[name]())
        timed = bench.build_and_time(network, work / "variants" / name)
        first = timed.output if first is None else first
        error = relative_error(timed.output, first)
        found[name] = {"pass": timed.passes, "export_seconds": timed.export_seconds, "build_seconds": timed.build_seconds, "error": error}
        write_part(work, "variants", {"profile": bench.profile.name, "runtime": bench.platform.runtime, "variants": found})
        milliseconds = 1000 * timed.passes["median"]
        console.print(f"{name}: {milliseconds:.2f} ms, built in {timed.build_seconds:.0f} s, relative error {error:.2g}")
        if not np.isfinite(timed.output).all():
            raise ValueError(f"{name}: values that are not finite")


if __name__ == "__main__":
    typer.run(main)
