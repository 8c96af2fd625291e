"""Triton's entry to `preprocess`: validates everything, tokenizes, makes noise, solver tables and control
maps.
"""

from intaglio.triton_models.stages import PreprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
