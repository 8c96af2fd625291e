"""The results of the simulation as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.measuring.figures import Results, table_lines

__all__ = ["markdown_of"]

_POLICIES: Final = ("sticky", "round robin", "least waiting")
_HEADER: Final = (
    "| sets | replicas | wait, s: sticky | round robin | least waiting "
    "| swaps a picture: sticky | round robin | least waiting |"
)

_HEAD: Final = """\
# Several replicas that swap LoRAs: a simulation

**Nothing here was measured on several cards.** The seconds of one card are measured. Arrivals, queues and
what a proxy does are simulated (`benchmarks/replicas/`). Each replica has the server's own queue rule.

* A picture of {steps} steps takes {memory[picture]:.3f} s on the card.
* Files in memory: a change to another set of one LoRA takes {memory[swap]:.3f} s.
* Files read: sets are two LoRAs of rank 64. A change takes {read[swap]:.3f} s, and {read[reading]:.2f} s more
  where the set is not among the {read[kept]} whose files the server keeps.
* Arrivals are a Poisson process. The set of rank r is asked for in proportion to 1/r (Zipf).
* Load: arrivals by what the replicas could draw if no change of LoRAs took any time.
* Wait: seconds from the arrival of a request to its first step, so with the change of LoRAs; the mean, and
  in brackets the 99th percentile. `%` is the share of requests that found every queue full that they were
  sent to, which are up to five.
* sticky: consistent hashing of the set with bounded load, factor 1.25, as docker/kubernetes has it.
  least waiting: the replica with the fewest requests.
* {requests} requests a case, more with over 50 replicas; seed {seed}; the first tenth is not counted.

![waits and swaps]({plot})

Where the seconds were measured (one H200; medians, but for the reading, which was measured once):

"""


def markdown_of(results: Results, *, plot: str) -> str:
    """The page of a results file; `plot` is the file of its plot, beside it."""
    lines = _HEAD.format(
        plot=plot,
        steps=results["steps"],
        requests=results["requests"],
        seed=results["seed"],
        memory=results["costs"]["files in memory"],
        read=results["costs"]["files read"],
    ).splitlines()
    lines += [f"* {what}: {where}" for what, where in results["sources"].items()]
    for reads in (False, True):
        lines += _policy_lines([row for row in results["policies"] if row["reads"] is reads], reads=reads)
    lines += _factor_lines(results["factors"])
    return "\n".join(lines) + "\n"


def _policy_lines(rows: Sequence[Mapping[str, Any]], *, reads: bool) -> list[str]:
    lines = []
    for load in sorted({row["load"] for row in rows}):
        lines += ["", f"## Files {'read' if reads else 'in memory'}, load {load:g}"]
        at_load = [row for row in rows if row["load"] == load]
        cells = []
        for loras in sorted({row["loras"] for row in at_load}):
            for replicas in sorted({row["replicas"] for row in at_load}):
                found = {
                    row["policy"]: row
                    for row in at_load
                    if (row["loras"], row["replicas"]) == (loras, replicas)
                }
                waits = [_wait(found[policy]) for policy in _POLICIES]
                swaps = [f"{found[policy]['swaps_a_picture']:.2f}" for policy in _POLICIES]
                cells.append((str(loras), str(replicas), *waits, *swaps))
        lines += table_lines(_HEADER, cells)
    return lines


def _factor_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    factors = list(dict.fromkeys(row["policy"] for row in rows))
    cells = []
    for reads, load, replicas in dict.fromkeys((row["reads"], row["load"], row["replicas"]) for row in rows):
        found = [
            row for row in rows if (row["reads"], row["load"], row["replicas"]) == (reads, load, replicas)
        ]
        files = "read" if reads else "in memory"
        shown = [f"{_wait(row)}, {row['swaps_a_picture']:.2f} swaps" for row in found]
        cells.append((files, f"{load:g}", str(replicas), *shown))
    header = "| files | load | replicas | " + " | ".join(factors) + " |"
    loras = rows[0]["loras"]
    return ["", f"## The factor of the bound, {loras} sets", *table_lines(header, cells)]


def _wait(row: Mapping[str, Any]) -> str:
    refused = f", {row['refused']:.0%}" if row["refused"] >= 0.005 else ""
    return f"{row['wait_mean']:.2f} ({row['wait_p99']:.1f}){refused}"
