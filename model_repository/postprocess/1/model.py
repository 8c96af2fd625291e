"""Triton's entry to `postprocess`: encodes the images with their metadata inside."""

from intaglio.triton_models.stages import PostprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
