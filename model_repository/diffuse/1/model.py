"""Triton's entry to `diffuse`."""

from intaglio.triton_models.diffuse import DiffuseModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
