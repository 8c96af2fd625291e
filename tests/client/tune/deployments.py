"""Deployments that a test changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from intaglio.contract.config import Deployment, load_deployment


def deployment(folder: Path, **changes: Any) -> Deployment:
    """One with a pose ControlNet, one pose and two sizes; no weights."""
    (folder / "poses").mkdir(exist_ok=True)
    (folder / "poses" / "waving-01.json").write_text("{}")
    values = {
        "base": [{"folder": "model"}],
        "controlnets": {"openpose": {"folder": "control", "type": "pose"}},
        "profiles": {"sizes": [[64, 64], [64, 96]]},
        "poses": "poses",
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_deployment(path)
