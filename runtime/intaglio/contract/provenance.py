"""What a deployment's pictures say of their origin."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from intaglio.contract.yaml_files import Strict, resolved_path

__all__ = ["ContentCredentials", "Provenance"]


class ContentCredentials(Strict):
    """Who signs pictures with C2PA. The build holds the paths, and no copies of the files."""

    certificate: Path
    """PEM file: the signer's certificate, then those that lead to its root."""
    private_key: Path
    """PEM file in PKCS #8."""
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = "es256"
    """What the key is made for."""
    timestamp_url: str | None = None
    """A timestamp authority (RFC 3161) that every picture's signature is sent to."""

    _paths = field_validator("certificate", "private_key")(resolved_path)


class Provenance(Strict):
    """What pictures say of their origin, beside how they were made."""

    source_type: bool = True
    """Whether XMP says that a trained model made the picture (IPTC's `trainedAlgorithmicMedia`)."""
    c2pa: ContentCredentials | None = None
    """Absent: pictures are not signed."""
