"""What `kubectl kustomize` makes of an overlay, and looking things up in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from intaglio.contract.config import Deployment, load_deployment

from .tools import ROOT, output_of, program

__all__ = [
    "CONFIG",
    "Object",
    "config_text",
    "container_of",
    "deployment_of",
    "kinds",
    "of_kind",
    "one",
    "pod_of",
    "rendered",
    "selects",
]

Object = Mapping[str, Any]
CONFIG: Final = "intaglio.yaml"


def rendered(overlay: Path) -> list[dict[str, Any]]:
    """The objects of `overlay`."""
    text = output_of(program("kubectl", "the extra `ship`"), "kustomize", overlay)
    return [found for found in yaml.safe_load_all(text) if found is not None]


def kinds(objects: Iterable[Object]) -> set[str]:
    return {found["kind"] for found in objects}


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    return [found for found in objects if found["kind"] == kind]


def one(objects: Iterable[Object], kind: str) -> Any:
    """The only object of `kind`."""
    (found,) = of_kind(objects, kind)
    return found


def pod_of(objects: Sequence[Object], kind: str) -> Any:
    """The pod of the only Job or Deployment."""
    return one(objects, kind)["spec"]["template"]["spec"]


def container_of(objects: Sequence[Object], kind: str) -> Any:
    """Its only container."""
    (container,) = pod_of(objects, kind)["containers"]
    return container


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether `matchLabels` of a selector selects `labels`; one without selects everything."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(name) == value for name, value in wanted.items())


def config_text(objects: Sequence[Object]) -> str:
    """The deployment's YAML in the only ConfigMap that has one."""
    (data,) = [found["data"] for found in of_kind(objects, "ConfigMap") if CONFIG in found["data"]]
    return str(data[CONFIG])


def deployment_of(objects: Sequence[Object], folder: Path) -> Deployment:
    """The deployment that the pods get, among the files that the demo image has beside it."""
    configs = folder / "configs"
    if not configs.exists():
        shutil.copytree(ROOT / "configs", configs)
    (configs / CONFIG).write_text(config_text(objects))
    return load_deployment(configs / CONFIG)
