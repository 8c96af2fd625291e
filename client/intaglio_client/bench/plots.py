"""Four plots of a report, as PNGs. `matplotlib` draws them; the extra `bench` brings it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from intaglio_client.bench.figures import STAGES, WAITING, fitted_line
from intaglio_client.bench.report import MEMORY, MIB, growth_of, growth_of_memory

__all__ = ["PLOTS", "drawn_plots"]

Data = Mapping[str, Any]
_INCHES: Final = (9.0, 5.2)
_DOTS_PER_INCH: Final = 110
_GRID: Final = "#e4e4e4"
_COLOURS: Final = {
    WAITING: "#bbbbbb",
    "preprocess": "#8a5aa8",
    "lora_swap": "#a53b5e",
    "controlnet_swap": "#b08a1e",
    "text_encoders": "#3f8f8f",
    "denoise": "#3b6ea5",
    "vae": "#5a8f3d",
    "postprocess": "#c05a2e",
}
_OTHER: Final = "#666666"
_GROWING: Final = {"size": "pixels", "clients": "requests under way", "num_images": "images a request"}
"""What grows, in words."""
_NAMES: Final = {"closed": "under way", "streaming": "streamed", "open": "sent a second"}


def drawn_plots(data: Data) -> dict[str, bytes]:
    """File name -> PNG, of every plot that `data` has something for."""
    found = {}
    for name, draw in PLOTS.items():
        figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
        if draw(figure, data):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            found[name] = buffer.getvalue()
    return found


def _measured(data: Data) -> list[Data]:
    return [load for load in data["loads"] if not load["failed"]]


def _framed(figure: Figure, title: str, x: str, y: str) -> Axes:
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _title(data: Data, text: str) -> str:
    served = data["served"]
    return f"{data['workload']['name']}: {text} ({served.get('runtime')} {served.get('precision')})"


def _latencies(figure: Figure, data: Data) -> bool:
    """Share of requests over seconds: a curve further left is faster, a steeper one steadier."""
    loads = [load for load in _measured(data) if load["kind"] != "growth"]
    if not loads:
        return False
    axes = _framed(
        figure, _title(data, "latency"), "seconds from request to picture", "requests answered by then, %"
    )
    styles = {"closed": "-", "streaming": ":", "open": "--"}
    for load in loads:
        times = sorted(sample["seconds"] for sample in load["samples"])
        shares = [100 * (index + 1) / len(times) for index in range(len(times))]
        label = f"{load['load']}: {load['shown_value']} {_NAMES[load['kind']]}"
        axes.step(
            [times[0], *times], [0.0, *shares], where="post", label=label, linestyle=styles[load["kind"]]
        )
    axes.set_xlim(left=0)
    axes.set_ylim(0, 101)
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    return True


def _throughputs(figure: Figure, data: Data) -> bool:
    """One line a load: its points go right with the load, until the server is busy, and then only up."""
    series: dict[str, list[Data]] = {}
    for load in _measured(data):
        if load["kind"] != "growth":
            series.setdefault(load["load"], []).append(load)
    if not series:
        return False
    axes = _framed(
        figure,
        _title(data, "throughput and latency"),
        "requests answered a second",
        "median latency, seconds",
    )
    for name, loads in series.items():
        ordered = sorted(loads, key=lambda load: float(load["value"]))
        x = [load["throughput"] for load in ordered]
        y = [load["latency"]["p50"] for load in ordered]
        axes.plot(x, y, marker="o", label=f"{name} ({_NAMES[ordered[0]['kind']]})")
        for load, across, up in zip(ordered, x, y, strict=True):
            axes.annotate(
                load["shown_value"], (across, up), xytext=(5, 5), textcoords="offset points", fontsize="small"
            )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.08, y=0.12)
    axes.legend(frameon=False, fontsize="small")
    return True


def _stages(figure: Figure, data: Data) -> bool:
    """A bar a load, of mean seconds one stage after the other."""
    loads = [load for load in _measured(data) if load["stages"]]
    if not loads:
        return False
    axes = _framed(figure, _title(data, "where the time goes"), "mean seconds of a request", "")
    found = {name for load in loads for name in load["stages"]}
    names = [name for name in (WAITING, *STAGES) if name in found]
    names += sorted(found - set(names))
    rows = range(len(loads))
    left = [0.0] * len(loads)
    for name in names:
        widths = [load["stages"].get(name, 0.0) for load in loads]
        axes.barh(rows, widths, left=left, color=_COLOURS.get(name, _OTHER), label=name.replace("_", " "))
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_yticks(rows, [load["name"] for load in loads], fontsize="small")
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    return True


def _growth(figure: Figure, data: Data) -> bool:
    """Median seconds over what grows, each with its line; below them the memory, where it was looked at.

    A load of which one value was measured has no growth.
    """
    series = {name: points for name, points in growth_of(data).items() if len(points) > 1}
    if not series:
        return False
    vary = {load["load"]: load["vary"] for load in data["loads"]}
    places = [place for place in MEMORY if growth_of_memory(data, place)]
    width, height = _INCHES
    figure.set_size_inches(max(width, 3.2 * len(series)), height * (1 + 0.75 * len(places)))
    panels = figure.subplots(1 + len(places), len(series), squeeze=False)
    figure.suptitle(_title(data, "growth, one value after the other"), x=0.01, ha="left")
    for axes, (name, points) in zip(panels[0], series.items(), strict=True):
        _panel(axes, points, name, _GROWING.get(vary[name], str(vary[name]).replace("_", " ")))
    panels[0][0].set_ylabel("median latency, seconds")
    for row, place in zip(panels[1:], places, strict=True):
        grown = growth_of_memory(data, place)
        for axes, name in zip(row, series, strict=True):
            points = {value: size / MIB for value, size in grown.get(name, {}).items()}
            if points:
                _panel(axes, points, name, _GROWING.get(vary[name], str(vary[name]).replace("_", " ")))
            else:
                axes.set_visible(False)
        row[0].set_ylabel(f"memory of the {MEMORY[place]}, MiB")
    return True


def _panel(axes: Axes, points: Mapping[float, float], name: str, unit: str) -> None:
    values = sorted(points)
    axes.plot(values, [points[value] for value in values], "o", color="#3b6ea5")
    line = fitted_line(points)
    if line is not None:
        ends = [min(0.0, values[0]), values[-1]]
        axes.plot(ends, [line.intercept + line.slope * end for end in ends], color="#c05a2e", linewidth=1)
        axes.set_title(f"{name}: within {100 * line.largest:.1f} % of a line", loc="left", fontsize="small")
    else:
        axes.set_title(name, loc="left", fontsize="small")
    axes.set_xlabel(unit)
    axes.grid(True, color=_GRID)
    axes.set_xlim(0, 1.06 * values[-1])
    axes.set_ylim(0, 1.1 * max(points.values()))


PLOTS: Final[Mapping[str, Callable[[Figure, Data], bool]]] = {
    "latency.png": _latencies,
    "throughput.png": _throughputs,
    "stages.png": _stages,
    "growth.png": _growth,
}
"""By the name of their file."""
