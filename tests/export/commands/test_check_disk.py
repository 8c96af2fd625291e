"""Room for what a build downloads and writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.architecture import PARAMETERS
from intaglio.contract.config import load_deployment
from intaglio.serving.findings import Finding
from intaglio_export.commands import check_disk
from intaglio_export.commands.check_disk import disk_findings, written_bytes
from intaglio_export.commands.source_report import SourceReport
from intaglio_export.engines.platform import Platform
from intaglio_export.weights.sources import find_base

from ...hub import without_hub

ROOT = Path(__file__).parents[3]
MINIATURE = {"folder": str(ROOT / "miniature/model")}
CPU = Platform("onnxruntime", "cpu", "1", on_gpu=False)
CARD = Platform("tensorrt-rtx", "sm89", "1", on_gpu=True)


def report(folder: Path, base: dict[str, Any], *, platform: Platform = CPU, **values: Any) -> SourceReport:
    path = folder / "a.yaml"
    profiles = {"sizes": [[64, 64]]}
    path.write_text(
        yaml.safe_dump({"base": base, "profiles": profiles, "build": "build", "precision": "auto", **values})
    )
    deployment = load_deployment(path)
    return SourceReport(deployment, path, platform, find_base(deployment.base))


def test_a_build_writes_each_weight_twice_and_what_loras_change_once_more(tmp_path: Path) -> None:
    stored = sum(path.stat().st_size for path in (ROOT / "miniature/model").rglob("*.safetensors"))
    card = written_bytes(report(tmp_path, MINIATURE, platform=CARD))
    assert card == pytest.approx(2 * stored, rel=0.02), "the miniature is stored in fp16"
    assert written_bytes(report(tmp_path, MINIATURE)) == 2 * card, "fp32 on the CPU"
    (tmp_path / "loras.yaml").write_text("loras: {}")
    swaps = written_bytes(report(tmp_path, MINIATURE, platform=CARD, registry="loras.yaml", swap="all"))
    assert swaps is not None
    assert 2.5 * stored < swaps < 3.1 * stored


def test_weights_from_a_seed_are_counted_by_the_table(tmp_path: Path) -> None:
    seeded = {"architecture": "sdxl-base-1.0", "seed": 0}
    found = written_bytes(report(tmp_path, seeded, platform=CARD))
    assert found == 2 * 2 * (
        sum(PARAMETERS["sdxl-base-1.0"].values())
        - PARAMETERS["sdxl-base-1.0"]["controlnet"]
        - PARAMETERS["sdxl-base-1.0"]["controlnet_context"]
    )


def test_downloads_and_a_build_on_one_disk_need_room_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_hub(tmp_path / "cache", monkeypatch)
    known = report(tmp_path, MINIATURE)
    known.to_fetch["vae"] = 10**6

    def findings(free: int) -> dict[str, Finding]:
        disk = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(check_disk.shutil, "disk_usage", lambda _: disk)
        return {one.what: one for one in disk_findings(known)}

    written = written_bytes(known) or 0
    assert {one.state for one in findings(written + 10**6).values()} == {"ok"}
    short = findings(written + 10**6 - 1)
    assert {one.state for one in short.values()} == {"missing"}
    assert "are needed there in all" in short["build disk"].detail
    assert "(estimate: weights x stages)" in short["build disk"].detail
    (known.deployment.build_folder).mkdir(parents=True)
    (known.deployment.build_folder / "manifest.json").touch()
    assert findings(0)["build disk"].state == "note", "what is built already is not written again"


def test_a_single_file_without_configurations_has_no_estimate(tmp_path: Path) -> None:
    """The download of its configurations says nothing of the size of its weights."""
    known = report(tmp_path, MINIATURE)
    known.base = None
    known.to_fetch["base"] = 10**6
    assert written_bytes(known) is not None
    known.lacks_configurations = True
    assert written_bytes(known) is None


def test_nothing_is_said_of_a_build_that_is_not_known(tmp_path: Path) -> None:
    known = report(tmp_path, MINIATURE)
    known.platform = None
    assert list(disk_findings(known)) == []
