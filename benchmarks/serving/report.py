"""The page of a measurement of `intaglio bench`, with MLPerf's published results beside it.

    python -m benchmarks.serving.report benchmarks/results/h200_serving.json [--note TEXT]
The JSON file is a `report.json`. What is published, and what differs, is added to it. The page and the plots
are written beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.measuring.figures import table_lines
from benchmarks.serving.published import PUBLISHED
from intaglio.builds.manifest import write_json
from intaglio.whole_files import write_whole
from intaglio_client.bench.plots import drawn_plots
from intaglio_client.bench.report import page_of
from intaglio_client.bench.written import read_report

__all__ = ["beside_published", "differences", "page_with_published", "write_page"]

Data = Mapping[str, Any]
_UNITS: Final = {"Offline": "pictures/s", "Server": "queries/s", "SingleStream": "s, 90th percentile"}
_HEADER: Final = "| scenario | here | published | round, cards, precision | of one card | here / published |"


def _own(data: Data) -> dict[str, list[Data]]:
    """The loads that are scenarios, by their scenario, without those that failed."""
    found: dict[str, list[Data]] = {}
    for load in data["loads"]:
        if "scenario" in load and not load["failed"]:
            found.setdefault(load["scenario"]["name"], []).append(load)
    return found


def _value(name: str, loads: list[Data]) -> float | None:
    """The figure of a scenario; of Server the highest rate that stayed within its limit."""
    if name == "Server":
        return max((load["scenario"]["rate"] for load in loads if load["scenario"]["reached"]), default=None)
    key = "rate" if name == "Offline" else "seconds"
    return float(loads[0]["scenario"][key])


def beside_published(data: Data) -> list[dict[str, Any]]:
    """Every published result of a scenario that was measured, with the own figure and their ratio."""
    found = []
    for name, loads in _own(data).items():
        own = _value(name, loads)
        for one in PUBLISHED:
            if one.scenario == name and own is not None:
                ratio = own / one.of_one_card
                found.append({**asdict(one), "of_one_card": one.of_one_card, "own": own, "ratio": ratio})
    return found


def differences(data: Data) -> list[str]:
    """Why no row is an MLPerf result, and what makes a row larger or smaller."""
    loads = [load for group in _own(data).values() for load in group]
    requests = {load["scenario"]["name"]: load["requests"] for load in loads}
    counts = ", ".join(f"{count} of {name}" for name, count in requests.items())
    precision, card = data["served"].get("precision"), data["machine"]["card"]
    here = f"one {card['name']}" if card else "none"
    return [
        f"precision: {precision} for every network here; fp8 for the UNet there",
        "batches: one picture a pass here; 64 (Offline) and 16 (Server) there, as the configurations of v5.1 "
        "say",
        f"cards: {here} here; a rate of eight is divided by eight",
        f"length: {counts} requests here; at least ten minutes there",
        "prompts: eight sentences with a running number here; 5000 captions of COCO there",
        "weights: where the deployment draws them from a seed, pictures show nothing, and neither FID nor "
        "CLIP score is checked; there both are. Speed does not depend on the values",
        "client: perf_analyzer over gRPC, through all of Triton, to a PNG here; LoadGen in the process, to "
        "pixels, there",
        "Server: the longest latency of so few requests stands for the 99th percentile, at the rates that "
        "were tried; there the rate is raised up to the limit of 20 s",
        "ControlNets: the requests of the scenarios use none, and the server has one loaded",
        "the same in both: 1024x1024, 20 Euler steps, guidance 8, a negative prompt, one query a picture",
    ]


def page_with_published(data: Data, plots: Sequence[str]) -> str:
    """The page of `intaglio bench` with the note below its heading, and what is published at its end."""
    heading, _, rest = page_of(data, plots).partition("\n\n")
    parts = [heading, rest.rstrip()]
    if data.get("note"):
        parts.insert(1, str(data["note"]))
    found = beside_published(data)
    if found:
        places = {one["place"]: one["version"] for one in found}
        parts += [
            "## Beside MLPerf's published results",
            "\n".join(table_lines(_HEADER, map(_cells, found))[1:]),
            "These are no MLPerf results. What differs:",
            "\n".join(f"* {line}" for line in differences(data)),
            "The published results are of the closed division, stable-diffusion-xl:",
            "\n".join(f"* mlcommons/inference_results_{round_}: {one}" for one, round_ in places.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["scenario"],
        f"{one['own']:.3f} {_UNITS[one['scenario']]}",
        f"{one['value']:.4g}",
        f"{one['version']}, {one['cards']} x {one['card']}, {one['precision']}",
        f"{one['of_one_card']:.3f}",
        f"{one['ratio']:.2f}",
    ]


def write_page(path: Path, *, note: str | None = None) -> None:
    """Add what is published to the results in `path`, and write page and plots beside them."""
    data = read_report(path)
    if note is not None:
        data["note"] = note
    data["published"] = {"results": beside_published(data), "differences": differences(data)}
    write_json(path, data)
    plots = {f"{path.stem}_{name}": png for name, png in drawn_plots(data).items()}
    for name, png in plots.items():
        write_whole(path.with_name(name), png)
    write_whole(path.with_suffix(".md"), page_with_published(data, list(plots)).encode())


def main(
    results: Path,
    note: Annotated[
        str | None, typer.Option(help="What a reader must know beside the figures; kept in the results.")
    ] = None,
) -> None:
    """Write the page; ends with 1 where a load has no result."""
    write_page(results, note=note)
    failed = [load["name"] for load in read_report(results)["loads"] if load["failed"]]
    if failed:
        print(f"no result: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
