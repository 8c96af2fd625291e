"""Triton's entry to `identity`."""

from intaglio.triton_models.identity import IdentityModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
