"""Triton's entry to `preprocess`."""

from intaglio.triton_models.stages import PreprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
