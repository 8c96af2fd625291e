"""The Triton model `identity`: how much the faces of pictures are like an enrolled character."""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

from pathlib import Path

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import IDENTITY
from intaglio.triton_models.stages import Stage, StageModel

__all__ = ["IdentityModel"]


class IdentityModel(StageModel):
    """`identity`."""

    spec = IDENTITY

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.faces.served import ServedFaces
        from intaglio.stages.identity import identify

        faces = ServedFaces(manifest, folder)
        return lambda tensors, wanted: identify(tensors, faces)
