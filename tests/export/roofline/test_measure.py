"""A roofline of a build of random weights on this processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, EngineMismatch
from intaglio_export.build import BuildResult
from intaglio_export.card.graphs import KINDS
from intaglio_export.roofline import measure
from intaglio_export.roofline.measure import measure_roofline


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings of smaller graphs, in a second."""
    monkeypatch.setattr(measure, "_OF_A_PROCESSOR", 64)


@pytest.mark.usefixtures("small")
def test_every_engine_that_a_server_opens_is_measured(built: tuple[Path, BuildResult]) -> None:
    started: list[str] = []
    found = measure_roofline(load_deployment(built[0]), None, started=started.append)
    networks = {one["network"]: one for one in found["networks"]}
    assert list(networks) == started[1:] == [
        "text_encoder", "text_encoder_2", "unet", "unet_context", "controlnet.canny",
        "controlnet_context.canny", "vae_decoder",
    ]  # fmt: skip
    assert networks["controlnet.canny"]["equal"] == ["controlnet.pose"]
    assert found["picture"] == {"width": 72, "height": 96, "guidance": True, "images": 1}
    assert networks["vae_decoder"]["sizes"]["W"] == 72
    assert all(0 < one["seconds"] < 60 and one["bytes"] > 0 for one in networks.values())
    assert set(found["ceilings"]["operations_a_second"]) == set(KINDS)
    assert found["ceilings"]["precision"] == found["build"]["precision"] == "fp32"


def test_a_size_that_was_not_built_is_refused(built: tuple[Path, BuildResult]) -> None:
    with pytest.raises(ConfigError, match="size 80x80 is not in the build; allowed: 64x64, 72x96"):
        measure_roofline(load_deployment(built[0]), (80, 80), started=lambda _: None)


@pytest.mark.usefixtures("small")
def test_a_graph_that_is_gone_is_named_with_what_makes_it_again(copied: Path) -> None:
    (graph,) = (copied.parent / "build/.stages/onnx/unet").glob("*/model.onnx")
    graph.unlink()
    with pytest.raises(
        EngineMismatch, match=r"the graph of unet is not there any more; rebuild with: .*--force"
    ):
        measure_roofline(load_deployment(copied), None, started=lambda _: None)
