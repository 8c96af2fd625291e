"""Triton's entry to `preprocess`: validates everything, tokenizes, makes noise, solver tables and control maps."""

from intaglio.triton_layer import PreprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
