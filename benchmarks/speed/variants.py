"""Other graphs of the same UNet, each built for one profile and timed, to choose which one to export.

    python -m benchmarks.speed.variants CASE.json WORK_FOLDER [--only query]
Every variant computes the same function; the relative error to the first one is printed beside its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from benchmarks.speed.graphs import Workbench
from intaglio.engines.interface import Array
from intaglio_export.engines.verify import relative_error

__all__ = ["VARIANTS", "QueryScaled", "scale_queries"]


class QueryScaled:
    """Attention written out, with its scale applied to the queries where they are made.

    The tracer writes `scaled_dot_product_attention` with the root of the scale on queries and on keys, after
    the transpositions. A compiler may not be able to merge them into the matrix product from there. SDXL's
    scale, 1/8, is exact in float16.
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: Any,
    ) -> Any:
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


def scale_queries(network: Any) -> None:
    """Attend as `QueryScaled` does."""
    network.set_attn_processor(QueryScaled())


VARIANTS: Final[Mapping[str, Callable[[Any], None]]] = {
    "as exported": lambda network: None,
    "query": scale_queries,
}
"""What each variant changes."""


def main(
    case: Path,
    work: Path,
    only: Annotated[str, typer.Option(help="Variants in a list with commas, or all.")] = "all",
) -> None:
    """Build and time each variant for the first size with guidance."""
    bench = Workbench(Case.read(case).deployment)
    console = Console(highlight=False)
    found: dict[str, Any] = {}
    first: Array | None = None
    for name in VARIANTS if only == "all" else only.split(","):
        network = bench.network()
        VARIANTS[name](network)
        timed = bench.build_and_time(network, work / "variants" / name.replace(" ", "-"))
        if not np.isfinite(timed.output).all():
            raise ValueError(f"{name}: values that are not finite")
        first = timed.output if first is None else first
        error = relative_error(timed.output, first)
        found[name] = {
            "pass": timed.passes,
            "export_seconds": timed.export_seconds,
            "build_seconds": timed.build_seconds,
            "error": error,
        }
        values = {"profile": bench.profile.name, "runtime": bench.platform.runtime, "variants": found}
        write_part(work, "variants", values)
        milliseconds = 1000 * timed.passes["median"]
        built = f"built in {timed.build_seconds:.0f} s"
        console.print(f"{name}: {milliseconds:.2f} ms, {built}, relative error {error:.2g}")


if __name__ == "__main__":
    typer.run(main)
