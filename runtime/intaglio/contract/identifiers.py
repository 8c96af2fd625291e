"""Names of LoRAs, presets, characters, controls and poses: ids of a registry, never paths."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from intaglio.contract.models import REGISTRY_ID

__all__ = ["RegistryId"]

RegistryId = Annotated[str, StringConstraints(pattern=REGISTRY_ID)]
