"""The tables of the inputs of the public models, from the table of Triton's models."""

from __future__ import annotations

from collections.abc import Iterable

from intaglio.contract.models import ANNOTATE, IDENTITY, SDXL, SDXL_STREAM, ModelSpec
from intaglio.contract.ports import Port
from reference.tables import code, table

__all__ = ["annotate_inputs", "identity_inputs", "request_inputs", "stream_inputs"]

_WIRE: dict[str, str] = {"TYPE_STRING": "BYTES"}
"""Triton's name of a type in requests, where it is not that of config.pbtxt."""
_HEAD = ("name", "type", "shape", "default", "range", "example", "meaning")


def request_inputs() -> str:
    """One row for each input of `sdxl`."""
    return _table(SDXL, SDXL.inputs)


def stream_inputs() -> str:
    """One row for each input that `sdxl_stream` has and `sdxl` does not."""
    return _table(SDXL_STREAM, [port for port in SDXL_STREAM.inputs if port not in SDXL.inputs])


def annotate_inputs() -> str:
    """One row for each input of `annotate`."""
    return _table(ANNOTATE, ANNOTATE.inputs)


def identity_inputs() -> str:
    """One row for each input of `identity`."""
    return _table(IDENTITY, IDENTITY.inputs)


def _table(model: ModelSpec, ports: Iterable[Port]) -> str:
    return table(_HEAD, (_row(port, model) for port in ports))


def _row(port: Port, model: ModelSpec) -> tuple[str, ...]:
    """Raises ValueError where the table of models lacks the text, the default or an example."""
    if not port.doc or not port.shown_default or port.example is None:
        raise ValueError(f"{model.name}.{port.name}: give it `doc`, `example`, and `default` or `absent`")
    datatype = _WIRE.get(port.datatype, port.datatype.removeprefix("TYPE_"))
    shape = "[n]" if port.dims == (-1,) else str(list(port.dims))
    default = port.shown_default if port.default is None else code(port.shown_default)
    allowed = "" if port.allowed == port.doc else port.allowed
    return (code(port.name), datatype, shape, default, allowed, _example(port), port.doc)


def _example(port: Port) -> str:
    if port.name in ("image", "images", "photo"):
        return str(port.example)
    if port.datatype == "TYPE_BOOL":
        return code(str(bool(port.example)).lower())
    if isinstance(port.example, tuple):
        return code(str(list(port.example)))
    return code(str(port.example))
