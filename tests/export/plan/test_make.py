"""How stages are made: every kind has a maker, and a network is loaded once for the stages that need it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from intaglio.contract.config import load_deployment
from intaglio.errors import BuildError
from intaglio.loras.sets import set_digest
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.make import MAKERS, NetworkLoader
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageKind, StageStore

from ...checkpoint import Checkpoint
from ..conftest import write_config

PLATFORM = Platform("onnxruntime", "cpu", "1", on_gpu=False)


@pytest.fixture
def plan(checkpoint: Checkpoint, tmp_path: Path) -> Plan:
    config = write_config(tmp_path / "a.yaml", checkpoint, precision="fp16", fuse={"style": 0.5})
    return Plan(load_deployment(config), PLATFORM, StageStore(tmp_path / "store"))


def test_every_kind_of_stage_has_a_maker() -> None:
    assert set(MAKERS) == set(get_args(StageKind))


def test_fused_weights_are_those_that_are_exported(plan: Plan, checkpoint: Checkpoint) -> None:
    loader = NetworkLoader(plan)
    stage = plan.fuse
    assert stage is not None
    plan.store.run(stage, lambda work: MAKERS["fuse"](loader, "", work))
    assert [path.name for path in plan.store.path(stage).iterdir() if path.is_dir()] == ["unet"]
    fused = loader.network("unet")
    pristine = checkpoint.pipeline().unet.half()
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert fused.get_parameter(name).dtype == torch.float16
    assert not torch.equal(fused.get_parameter(name), pristine.get_parameter(name))
    assert torch.equal(fused.get_parameter("conv_in.weight"), pristine.get_parameter("conv_in.weight"))


def test_the_record_names_the_set(plan: Plan, tmp_path: Path) -> None:
    notes = MAKERS["fuse"](NetworkLoader(plan), "", tmp_path)
    assert notes == {"components": ["unet"], "lora_set": set_digest(plan.loras)}


def test_key_names_and_fusing_must_agree(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "fused_components", frozenset({"text_encoder"}))
    with pytest.raises(BuildError, match=r"changed \['unet'\], but the files' keys name \['text_encoder'\]"):
        MAKERS["fuse"](NetworkLoader(plan), "", tmp_path)


def test_a_network_is_loaded_once_for_the_graphs_that_share_it(plan: Plan) -> None:
    loader = NetworkLoader(plan)
    decoder = loader.network("vae_decoder")
    assert loader.network("vae_encoder") is decoder
    decoder.float()  # as verification does
    assert next(loader.network("vae_decoder").parameters()).dtype == torch.float16
    loader.network("text_encoder")
    assert loader.network("vae_decoder") is not decoder


def test_the_network_that_adds_loras_has_no_weights(plan: Plan) -> None:
    assert next(NetworkLoader(plan).network("lora_merge").parameters()).dtype == torch.float16
