"""The Triton model `annotate`: photographs to control maps. Its detectors run in a process of their own."""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

from pathlib import Path

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import ANNOTATE
from intaglio.triton_models.stages import Stage, StageModel

__all__ = ["AnnotateModel"]


class AnnotateModel(StageModel):
    """`annotate`."""

    spec = ANNOTATE

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.detectors.served import ServedDetectors
        from intaglio.stages.annotate import annotate

        detectors = self._opened.enter_context(ServedDetectors(manifest, folder))
        return lambda tensors, wanted: annotate(tensors, detectors)
