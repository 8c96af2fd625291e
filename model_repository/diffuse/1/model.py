"""Triton's entry to `diffuse`: text encoders, ControlNets and UNet x steps; the VAE runs when `pixels` is
asked for.
"""

from intaglio.triton_models.stages import DiffuseModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
