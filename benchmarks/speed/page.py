"""The results of a run as a Markdown page: where, what, how fast, how alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.measuring.figures import Results, figure_rows, known, machine_lines, table_lines
from benchmarks.speed.report import DIGITS, figures_of, outside_the_engines
from benchmarks.speed.settings import UNARY
from intaglio.contract.sdxl import context_name, controlnet_name

__all__ = ["CONTENDERS", "markdown_of"]

CONTENDERS: Final = ("eager", "compiled", "strongest", "engines", "served")
"""Parts that draw whole images."""
_Times = Mapping[str, Any] | None
"""A `spread`; None where nothing was measured."""


def markdown_of(results: Results) -> str:
    """The page of a results file."""
    case = results["case"]
    card = results["machine"]["card"] or {"name": "no card"}
    lines = [f"# {card['name']}, {case['width']}x{case['height']}, {case['steps']} Euler steps", ""]
    if results["stand_in"]:
        lines += [f"**{results['stand_in']}**", ""]
    if results.get("note"):
        lines += [results["note"], ""]
    lines += machine_lines(results)[:-1]  # a table brings its own empty line
    rows = figure_rows(results, figures_of(results), digits=DIGITS)
    lines += table_lines("| figure | required | aim | reached | |", rows)
    lines += _outside_lines(results)
    lines += _contender_lines(results)
    lines += _setting_lines(results["parts"])
    lines += _stream_lines(results["parts"])
    lines += table_lines(
        "| stage, one pass, ms | eager | compiled | strongest | intaglio |", _stage_rows(results)
    )
    lines += _controls_lines(results["parts"].get("controls", {}))
    lines += _size_lines(results["parts"])
    lines += _option_lines(results["parts"])
    lines += _variant_lines(results["parts"])
    lines += _batch_lines(results["parts"])
    return "\n".join(lines) + "\n"


def _outside_lines(results: Results) -> list[str]:
    alone = known(lambda: outside_the_engines(results, in_turn=False))
    if alone is None or "step" not in results["parts"]["engines"]:
        return []
    return [
        "",
        "Time outside the engines is what a step's engines in turn leave; "
        f"each of them by itself leaves {alone:.2f} %.",
    ]


def _contender_lines(results: Results) -> list[str]:
    rows = []
    for name in CONTENDERS:
        part = results["parts"].get(name, {})
        taken = part.get("seconds", {}).get("end_to_end")
        if taken is None:
            continue
        alike = results["psnr"].get(name)
        worst = f"{min(alike):.1f}" if alike else ""
        memory = str(part.get("card_peak_mib") or "")
        rows.append((name, f"{taken['median']:.3f}", _quartiles(taken), worst, memory))
    header = "| contender | whole image, s | quartiles | PSNR to eager, dB (worst) | card, MiB |"
    return table_lines(header, rows)


def _setting_lines(parts: Results) -> list[str]:
    taken = parts.get("matched", {}).get("seconds")
    if taken is None:
        return []
    whole = taken["the case"]["median"]
    rows = []
    for name, one in taken.items():
        rows.append((name, f"{one['median']:.3f}", _quartiles(one), f"{one['median'] / whole:.2f}"))
    for peer in CONTENDERS:
        fewer = parts.get(peer, {}).get("fewer_steps")
        if fewer is not None:
            own = fewer["median"] / parts[peer]["seconds"]["end_to_end"]["median"]
            label = f"{peer}: fewer steps"
            rows.append((label, f"{fewer['median']:.3f}", _quartiles(fewer), f"{own:.2f}"))
    return table_lines("| setting, over gRPC | whole image, s | quartiles | against all steps |", rows)


def _controls_lines(part: Mapping[str, Any]) -> list[str]:
    """Pictures with ControlNets, the engines of their steps, and what opening an engine consists of."""
    if "seconds" not in part:
        return []
    said = f"{part['controlnets']} ControlNets, {part['resident']} of them open at the same time."
    rows = [(name, f"{one['median']:.3f}", _quartiles(one)) for name, one in part["seconds"].items()]
    lines = ["", said, *table_lines("| picture over gRPC | s | quartiles |", rows)]
    steps = part.get("steps", {})
    if steps:
        cells = [(name, _milliseconds(one)) for name, one in steps.items()]
        lines += table_lines("| engines of a step in turn | ms |", cells)
    return lines + _opening_lines(part.get("opening", {}))


def _opening_lines(opening: Mapping[str, Any]) -> list[str]:
    ways = {"as served": opening.get("as served", {}), **opening.get("other ways", {})}
    rows = []
    for way, pieces in ways.items():
        for name, one in pieces.items():
            taken = one if name == "failed" else f"{one['median']:.3f}"
            rows.append((way, name, taken))
    return table_lines("| opening a ControlNet | | s |", rows) if rows else []


def _stream_lines(parts: Results) -> list[str]:
    found = parts.get("stream", {})
    if "seconds" not in found:
        return []
    taken = found["seconds"]
    whole = taken[UNARY]["median"]
    rows = []
    for name, one in taken.items():
        rows.append((name, f"{one['median']:.3f}", _quartiles(one), f"{one['median'] / whole:.3f}"))
    for name, one in found["events"].items():
        rows.append((f"{name} of these slices", f"{one['median']:.3f}", _quartiles(one), ""))
    return table_lines("| streamed, over gRPC | whole image, s | quartiles | against sdxl |", rows)


def _quartiles(taken: Mapping[str, Any]) -> str:
    return f"{taken['low']:.3f} to {taken['high']:.3f} (n={taken['n']})"


def _stage_rows(results: Results) -> list[tuple[str, ...]]:
    """Milliseconds by network of PyTorch's peers and intaglio; a row that nobody measured is left out."""
    parts = results["parts"]
    control = controlnet_name(str(results["case"]["control"]))
    names = {
        "text_encoder": "text_encoder",
        "text_encoder_2": "text_encoder_2",
        "unet, once an image": context_name("unet"),
        "unet": "unet",
        "controlnet, once an image": context_name(control),
        "controlnet": control,
        "vae_decoder": "vae_decoder",
    }
    theirs = [parts.get(peer, {}) for peer in ("eager", "compiled", "strongest")]
    engines = parts.get("engines", {})
    times: dict[str, list[_Times]] = {}
    for name, engine in names.items():
        times[name] = [part.get("stages", {}).get(name) for part in theirs]
        times[name].append(engines.get("stages", {}).get(engine))
    alone = [part.get("cfg_step") for part in theirs]
    times["CFG step alone, one after another"] = [*alone, engines.get("stages", {}).get("unet")]
    times["engines of a step in turn"] = [None, None, None, engines.get("step")]
    whole = [part.get("stages", {}).get("step") for part in theirs]
    times["whole step in an image"] = [*whole, _served_step(results)]
    return [(name, *map(_milliseconds, cells)) for name, cells in times.items() if any(cells)]


def _served_step(results: Results) -> _Times:
    denoise = results["parts"].get("served", {}).get("seconds", {}).get("denoise")
    if denoise is None:
        return None
    return {"median": float(denoise["median"]) / float(results["case"]["steps"])}


def _milliseconds(times: _Times) -> str:
    return "" if times is None else f"{1000 * times['median']:.2f}"


def _size_lines(parts: Results) -> list[str]:
    sizes = parts.get("served_sizes", {}).get("sizes", {})
    if not sizes:
        return []
    lines = []
    build = parts.get("build_sizes", {})
    if build.get("complete"):
        resumed = ", parts of which an earlier build had done: not the time of a build from nothing"
        lines += [
            "",
            f"All sizes in one build: {build['seconds']:.0f} s{resumed if build['resumed'] else ''}.",
        ]
    rows = [(name, f"{one['median']:.3f}", _quartiles(one)) for name, one in sizes.items()]
    return lines + table_lines("| size | over gRPC, s | quartiles |", rows)


def _option_lines(parts: Results) -> list[str]:
    options = parts.get("engines", {}).get("options", {})
    if not options:
        return []
    rows = [(name, f"{taken['median']:.3f}") for name, taken in options.items()]
    return table_lines("| option (changes the image) | whole image, s |", rows)


def _variant_lines(parts: Results) -> list[str]:
    variants = parts.get("variants", {}).get("variants", {})
    if not variants:
        return []
    rows = [(name, _milliseconds(one["pass"]), f"{one['error']:.2g}") for name, one in variants.items()]
    return table_lines("| graph of the UNet, one profile | ms | relative error |", rows)


def _batch_lines(parts: Results) -> list[str]:
    found = parts.get("batches", {}).get("images", {})
    if not found:
        return []
    each = {count: one["pass"]["median"] / int(count) for count, one in found.items()}
    alone = next(iter(each.values()))
    rows = [
        (count, _milliseconds(one["pass"]), f"{1000 * each[count]:.2f}", f"{alone / each[count]:.3f}")
        for count, one in found.items()
    ]
    header = "| pictures a pass of the UNet, with guidance | ms | ms a picture | pictures a second, ratio |"
    return table_lines(header, rows)
