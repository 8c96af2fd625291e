"""`intaglio doctor --card` where there is no card: what it says, and which image it projects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from intaglio.contract.config import load_deployment
from intaglio.errors import IntaglioError
from intaglio_export.card.measure import CardSpeed
from intaglio_export.card.work import image_work
from intaglio_export.commands.check_card import (
    architecture_configs,
    card_findings,
    drawing_of,
    speed_findings,
)

CONFIGS = Path(__file__).parents[3] / "configs"
SPEED = CardSpeed(
    operations={"product": 88e12, "convolution": 60e12, "attention": 40e12},
    fp8=None,
    bandwidth=260e9,
    from_host=12e9,
    sums="float32",
    error=2e-4,
    seconds=9.0,
)


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio_export.commands.check_card.gpu_capability", lambda gpu: None)
    path = CONFIGS / "miniature.yaml"
    (finding,) = card_findings(load_deployment(path), path)
    assert finding.state == "missing"
    assert "no NVIDIA card here" in finding.detail


def test_figures_are_named_with_their_units() -> None:
    lines = {finding.what: finding.detail for finding in speed_findings(SPEED)}
    assert lines["product, fp16"] == "88.0 TFLOP/s"
    assert lines["product, fp8"] == "not on this card with this library"
    assert "add in float32" in lines["sums"]
    assert "half as fast" in lines["sums"]
    assert lines["copies"].startswith("260 GB/s")


def test_the_image_is_the_largest_with_the_deployments_own_defaults() -> None:
    deployment = load_deployment(CONFIGS / "miniature.yaml")
    drawing = drawing_of(deployment)
    assert (drawing.width, drawing.height, drawing.steps) == (256, 256, 20)
    assert drawing.guidance
    assert drawing.controls == 1


def test_a_base_in_a_folder_is_counted_with_its_own_sizes() -> None:
    """The miniature has 1/200 of SDXL's weights: its work is far smaller."""
    work = {}
    for name in ("miniature", "sdxl"):
        configs = architecture_configs(load_deployment(CONFIGS / f"{name}.yaml"))
        work[name] = image_work(configs, width=256, height=256, guidance=True)["unet"].total
    assert work["miniature"] < work["sdxl"] / 20


def test_the_networks_are_those_that_a_build_takes(tmp_path: Path) -> None:
    """A candidate that is not here is passed over; one that is here and incomplete is named."""
    miniature = CONFIGS.parent / "miniature/model"
    values = {
        "base": [{"file": str(tmp_path / "none.safetensors")}, {"folder": str(miniature)}],
        "profiles": {"sizes": [[256, 256]]},
    }
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(values))
    own = json.loads((miniature / "unet/config.json").read_text())
    assert architecture_configs(load_deployment(path))["unet"] == own
    (tmp_path / "empty").mkdir()
    path.write_text(yaml.safe_dump({**values, "base": [{"folder": str(tmp_path / "empty")}]}))
    with pytest.raises(IntaglioError, match="empty"):
        architecture_configs(load_deployment(path))
