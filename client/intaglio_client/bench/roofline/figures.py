"""What bounds each network: the ceilings of the device, and the network's own work.

    floor = max(sum over kinds (operations / operations a second), bytes / bytes a second)
A pass cannot be expected to be faster than its floor. The share floor / seconds is how near it comes.
S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model", 2009; here every
kind of work has a ceiling of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.errors import ConfigError

__all__ = ["HEADER", "SCHEMA", "cells_of", "notes_of", "placed", "read_roofline"]

SCHEMA: Final = 1
HEADER: Final = (
    "network", "ms", "GFLOP", "MB", "FLOP/byte", "GFLOP/s", "GB/s", "floor ms", "of the roof", "bound by",
)  # fmt: skip
_GIGA: Final = 1e9
Data = Mapping[str, Any]


def placed(network: Data, ceilings: Data) -> dict[str, Any]:
    """`network` with its place below the roof."""
    work = network["operations"]
    total = math.fsum(work.values())
    speeds = ceilings["operations_a_second"]
    computing = math.fsum(count / speeds[kind] for kind, count in work.items())
    moving = network["bytes"] / ceilings["bytes_a_second"]
    floor = max(computing, moving)
    seconds = network["seconds"]
    return {
        **network,
        "operations_a_byte": total / network["bytes"],
        "operations_a_second": total / seconds,
        "bytes_a_second": network["bytes"] / seconds,
        "floor_seconds": floor,
        "share": floor / seconds,
        "bound": "memory" if moving > computing else max(work, key=lambda kind: work[kind] / speeds[kind]),
    }


def cells_of(data: Data) -> list[list[str]]:
    """One row a network, below `HEADER`."""
    rows = []
    for one in data["networks"]:
        total = math.fsum(one["operations"].values())
        rows.append(
            [
                one["network"],
                f"{1e3 * one['seconds']:.3g}",
                f"{total / _GIGA:.3g}",
                f"{one['bytes'] / 1e6:.3g}",
                f"{one['operations_a_byte']:.1f}",
                f"{one['operations_a_second'] / _GIGA:.3g}",
                f"{one['bytes_a_second'] / _GIGA:.3g}",
                f"{1e3 * one['floor_seconds']:.3g}",
                f"{100 * one['share']:.0f} %",
                one["bound"],
            ]
        )
    return rows


def notes_of(data: Data) -> list[str]:
    """What a reader must know beside the table."""
    ceilings, picture = data["ceilings"], data["picture"]
    reached = ", ".join(
        f"{kind} {speed / _GIGA:.4g} GFLOP/s" for kind, speed in ceilings["operations_a_second"].items()
    )
    guidance = "with guidance" if picture["guidance"] else "without guidance"
    notes = [
        f"Ceilings, measured in {ceilings['precision']}: {reached}, "
        f"copies {ceilings['bytes_a_second'] / _GIGA:.4g} GB/s (read and written).",
        f"One pass each for one picture of {picture['width']}x{picture['height']} {guidance}.",
        "Operations and bytes are counted in the graphs, not by the device: bytes are what matrix products "
        "and convolutions read and write, with all other work fused into them.",
    ]
    notes += [
        f"{', '.join(one['equal'])}: the same graph as {one['network']}."
        for one in data["networks"]
        if one["equal"]
    ]
    return notes


def read_roofline(path: Path) -> dict[str, Any]:
    """A `roofline.json`.

    Raises:
        ConfigError: it is none, or one of another version.
    """

    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a roofline: {error}") from error
    if not isinstance(data, dict) or "ceilings" not in data or data.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: is no roofline.json of this version of `intaglio bench roofline`")
    return data
