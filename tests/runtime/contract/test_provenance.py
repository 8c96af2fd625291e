"""What a deployment's YAML says of the origin of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.provenance import Provenance
from intaglio.errors import ConfigError


def load(folder: Path, provenance: Any) -> Deployment:
    values = {"base": [{"folder": "base"}], "profiles": {"sizes": [[64, 64]]}, "provenance": provenance}
    path = folder / "signed.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_deployment(path)


def test_paths_start_at_the_yaml_file(tmp_path: Path) -> None:
    found = load(tmp_path, {"c2pa": {"certificate": "chain.pem", "private_key": "keys/signer.key"}})
    assert found.provenance.source_type
    assert found.provenance.c2pa is not None
    assert found.provenance.c2pa.certificate == tmp_path / "chain.pem"
    assert found.provenance.c2pa.private_key == tmp_path / "keys/signer.key"
    assert found.provenance.c2pa.algorithm == "es256"
    assert found.digest != load(tmp_path, {}).digest
    assert load(tmp_path, {}).provenance == Provenance()


@pytest.mark.parametrize(
    "provenance", [{"c2pa": {"certificate": "a.pem"}}, {"c2pa": {"algorithm": "rsa"}}, {"signed": True}]
)
def test_what_is_wrong_is_refused(tmp_path: Path, provenance: Any) -> None:
    with pytest.raises(ConfigError, match="provenance"):
        load(tmp_path, provenance)
