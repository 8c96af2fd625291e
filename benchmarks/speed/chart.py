"""Whole images of every contender as a bar chart."""

from __future__ import annotations

from typing import Final

from benchmarks.measuring.figures import Results

__all__ = ["chart_of"]

_LABELS: Final = {
    "eager": "diffusers",
    "compiled": "diffusers + torch.compile",
    "strongest": "diffusers, strongest",
    "engines": "intaglio, engines",
    "served": "intaglio over gRPC",
}
_WIDTH: Final = 720
_LONGEST: Final = 400
"""Pixels of the longest bar."""
_OURS: Final = "#3b6ea5"
_THEIRS: Final = "#b0b0b0"


def chart_of(results: Results) -> str:
    """Seconds an image as SVG."""
    bars = _bars(results)
    longest = max(bars.values(), default=1.0)
    height = 40 * len(bars) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="14">',
        f'<text x="0" y="16">seconds an image, shorter is better ({_where(results)})</text>',
    ]
    for index, (label, seconds) in enumerate(bars.items()):
        top = 30 + 40 * index
        width = _LONGEST * seconds / longest
        colour = _OURS if label.startswith("intaglio") else _THEIRS
        lines += [
            f'<text x="190" y="{top + 20}" text-anchor="end">{label}</text>',
            f'<rect x="200" y="{top + 4}" width="{width:.1f}" height="24" fill="{colour}"/>',
            f'<text x="{208 + width:.1f}" y="{top + 21}">{seconds:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bars(results: Results) -> dict[str, float]:
    found = {}
    for name, label in _LABELS.items():
        seconds = results["parts"].get(name, {}).get("seconds", {})
        if "end_to_end" in seconds:
            found[label] = float(seconds["end_to_end"]["median"])
    return found


def _where(results: Results) -> str:
    if results["stand_in"]:
        return "for debugging: no card"
    card = results["machine"]["card"] or {}
    return str(card.get("name", ""))
