"""The tables of the inputs of `sdxl` and `sdxl_stream`, from the table of Triton's models."""

from __future__ import annotations

from intaglio.contract.models import SDXL, SDXL_STREAM
from intaglio.contract.ports import Port
from reference.tables import code, table

__all__ = ["request_inputs", "stream_inputs"]

_WIRE: dict[str, str] = {"TYPE_STRING": "BYTES"}
"""Triton's name of a type in requests, where it is not that of config.pbtxt."""
_HEAD = ("name", "type", "shape", "default", "range", "example", "meaning")


def request_inputs() -> str:
    """One row for each input of `sdxl`."""
    return table(_HEAD, (_row(port) for port in SDXL.inputs))


def stream_inputs() -> str:
    """One row for each input that `sdxl_stream` has and `sdxl` does not."""
    return table(_HEAD, (_row(port) for port in SDXL_STREAM.inputs if port not in SDXL.inputs))


def _row(port: Port) -> tuple[str, ...]:
    """Raises ValueError where the table of models lacks the text, the default or an example."""
    if not port.doc or not port.shown_default or port.example is None:
        raise ValueError(f"{port.name}: give it `doc`, `example`, and `default` or `absent`")
    datatype = _WIRE.get(port.datatype, port.datatype.removeprefix("TYPE_"))
    shape = "[n]" if port.dims == (-1,) else str(list(port.dims))
    default = port.shown_default if port.default is None else code(port.shown_default)
    allowed = "" if port.allowed == port.doc else port.allowed
    return (code(port.name), datatype, shape, default, allowed, _example(port), port.doc)


def _example(port: Port) -> str:
    if port.name == "images":
        return str(port.example)
    if port.datatype == "TYPE_BOOL":
        return code(str(bool(port.example)).lower())
    if isinstance(port.example, tuple):
        return code(str(list(port.example)))
    return code(str(port.example))
