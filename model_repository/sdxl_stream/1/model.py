"""Triton's entry to `sdxl_stream`."""

from intaglio.triton_models.stream import StreamModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
