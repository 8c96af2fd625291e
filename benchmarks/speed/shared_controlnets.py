"""A deployment with several ControlNets. The case's own one is built; the others are copies of its engines.

Opening an engine takes as long whatever its weights are. Each copy is a file of its own, so it is read for
itself. A picture does not depend on which copy drew it, which shows that every copy works.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.measuring.case import Case, deployment_values
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.sdxl import controlnet_name, controlnet_networks
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.records import read_record
from intaglio_export.plan.run import Reporter
from intaglio_export.plan.stages import STORE, Notes, Stage, StageStore

__all__ = ["COUNT", "build_shared", "write_shared_config"]

COUNT: Final = 5
"""ControlNets of the deployment."""
_PLACES: Final = 2
"""How many of them are open at the same time, where no memory limit decides."""


def write_shared_config(case: Case, folder: Path) -> Path:
    """Write the case's configuration with `COUNT` ControlNets from the source of its own, into `folder`.

    The case's own ControlNet comes first, under its own id.
    """
    deployment = case.deployment
    assert case.control is not None
    values: dict[str, Any] = deployment_values(deployment)
    source = values["controlnets"][case.control]
    ids = [case.control, *(f"{case.control}-{number}" for number in range(2, COUNT + 1))]
    values["controlnets"] = dict.fromkeys(ids, source)
    if deployment.memory_limit_gib is None:
        values["execution"]["resident_controlnets"] = _PLACES
    path = folder / f"{deployment.name}-controls.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    # Plain copies of the source: YAML would write them as references.
    path.write_text(yaml.dump(values, Dumper=_PlainDumper, sort_keys=False), encoding="utf-8")
    return path.resolve()


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def build_shared(config: Path, case: Case, *, reporter: Reporter) -> Deployment:
    """Build what `write_shared_config` wrote for `case`, and first the case itself; the deployment."""
    assert case.control is not None
    build_deployment(Path(case.config), BuildOptions(), reporter=reporter)
    deployment = load_deployment(config)
    store = StageStore(deployment.build / STORE)
    plan = Plan(deployment, resolve_platform(deployment), store)
    with store.locked():
        for control in deployment.controlnets:
            if control != case.control:
                _copy_stages(plan, case.control, control)
    build_deployment(config, BuildOptions(), reporter=reporter)
    return deployment


def _copy_stages(plan: Plan, first: str, control: str) -> None:
    """Give `control` the results that `first` has in the store."""
    own, others = controlnet_networks(controlnet_name(first)), controlnet_networks(controlnet_name(control))
    for network, other in zip(own, others, strict=True):
        for made, wanted in (
            (plan.onnx(network), plan.onnx(other)),
            (plan.engine(network), plan.engine(other)),
            (plan.verify(network), plan.verify(other)),
        ):
            if made is not None and wanted is not None:
                _copy_stage(plan.store, made, wanted)


def _copy_stage(store: StageStore, made: Stage, wanted: Stage) -> None:
    source = store.path(made)
    record = read_record(source)
    if record is None:
        raise ValueError(f"{made.name}: its record disappeared; run the part again")

    def copy(work: Path) -> Notes:
        for name in record.files:
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if made.kind == "engine":
                shutil.copyfile(source / name, target)
            else:
                os.link(source / name, target)  # nobody opens it
        return record.notes

    store.run(wanted, copy)
