"""Triton's entry to `postprocess`."""

from intaglio.triton_models.stages import PostprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
