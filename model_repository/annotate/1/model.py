"""Triton's entry to `annotate`."""

from intaglio.triton_models.annotate import AnnotateModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
