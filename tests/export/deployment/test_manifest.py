"""The manifest of a build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import RuntimeName, load_deployment
from intaglio.contract.detectors import DetectorSource
from intaglio.contract.identity import Identity
from intaglio.contract.provenance import ContentCredentials, Provenance
from intaglio.serving.memory import GIB, predict_memory
from intaglio_export.build import BuildResult
from intaglio_export.deployment.manifest import _with_residents, build_key, repository_options
from intaglio_export.engines.platform import Platform

from ...checkpoint import Checkpoint
from ..conftest import write_config


@pytest.mark.parametrize(("runtime", "gpu"), [("onnxruntime", None), ("tensorrt-rtx", 2)])
def test_the_repository_names_the_card_of_the_deployment(
    tmp_path: Path, checkpoint: Checkpoint, runtime: RuntimeName, gpu: int | None
) -> None:
    config = write_config(tmp_path / "a.yaml", checkpoint, runtime="auto", execution={"gpu": 2})
    plan: Any = SimpleNamespace(
        deployment=load_deployment(config), platform=Platform(runtime, "sm89", "1", on_gpu=False)
    )
    assert repository_options(plan, build_key="").gpu == gpu


@pytest.mark.parametrize(
    ("gpus", "found"), [([1], (1, "")), ([1, 0], (None, "1,0")), ("all", (None, "all")), (None, (2, ""))]
)
def test_the_repository_names_the_cards_that_draw(
    tmp_path: Path, checkpoint: Checkpoint, gpus: Any, found: tuple[int | None, str]
) -> None:
    server = {} if gpus is None else {"gpus": gpus}
    config = write_config(
        tmp_path / "a.yaml", checkpoint, runtime="auto", execution={"gpu": 2}, server=server
    )
    plan: Any = SimpleNamespace(
        deployment=load_deployment(config), platform=Platform("tensorrt-rtx", "sm89", "1", on_gpu=False)
    )
    options = repository_options(plan, build_key="")
    assert (options.gpu, options.gpus) == found


def test_the_key_does_not_depend_on_where_the_signers_files_are(built: tuple[Path, BuildResult]) -> None:
    manifest = built[1].manifest
    keys = []
    for folder in ("/a", "/b"):
        signer = ContentCredentials(certificate=Path(folder, "a.pem"), private_key=Path(folder, "a.key"))
        signed = manifest.model_copy(update={"provenance": Provenance(c2pa=signer)})
        keys.append(build_key(signed, {}))
    silent = manifest.model_copy(update={"provenance": Provenance(source_type=False)})
    assert keys[0] == keys[1] != build_key(silent, {})


def test_the_key_follows_what_the_detectors_make(built: tuple[Path, BuildResult]) -> None:
    """A running server reloads a build only where its key is another."""

    def key_of(**detectors: DetectorSource) -> str:
        return build_key(built[1].manifest.model_copy(update={"detectors": detectors}), {})

    first, second = (DetectorSource(kind="depth", file=Path("detectors", one)) for one in ("a", "b"))
    far = first.model_copy(update={"near": "small"})
    sets = [{"near": first, "far": second}, {"near": second, "far": first}, {"near": far, "far": second}]
    assert len({key_of(**one) for one in sets}) == len(sets)
    missing = [DetectorSource(kind="depth", file=Path(folder, "midas.onnx")) for folder in ("/a", "/b")]
    assert key_of(depth=missing[0]) == key_of(depth=missing[1]), "where it is missing says nothing"


def test_the_key_follows_what_reads_faces_and_not_where_characters_lie(
    built: tuple[Path, BuildResult],
) -> None:
    def key_of(**changes: Any) -> str:
        values = {"characters": "/a", "detector": "faces/1/d", "recognition": "faces/1/r", "threshold": 0.4}
        setting = Identity.model_validate(values | changes)
        return build_key(built[1].manifest.model_copy(update={"identity": setting}), {})

    without = build_key(built[1].manifest, {})
    changed = ({}, {"threshold": 0.5}, {"recognition": "faces/2/r"}, {"measure": "euclidean"})
    assert len({without, *(key_of(**one) for one in changed)}) == 1 + len(changed)
    assert key_of(characters="/b") == key_of()


def test_a_build_decides_how_many_controlnets_are_open(built: tuple[Path, BuildResult]) -> None:
    config, result = built
    assert result.manifest.execution.resident_controlnets == 2, "there is no limit, so all of them"
    deployment = load_deployment(config)
    undecided = result.manifest.model_copy(update={"execution": deployment.execution})
    whole = predict_memory(deployment, result.manifest).bytes
    tight = deployment.model_copy(update={"memory_limit_gib": (whole - 1) / GIB})
    decided = _with_residents(undecided, tight)
    assert decided.execution.resident_controlnets == 1
    assert predict_memory(tight, decided).bytes < whole


def test_manifest_names_what_is_there(built: tuple[Path, BuildResult]) -> None:
    config, result = built
    manifest = read_manifest(result.folder)
    assert manifest == result.manifest
    assert manifest.config_digest == load_deployment(config).digest
    assert set(manifest.networks) == {
        "text_encoder",
        "text_encoder_2",
        "unet",
        "unet_context",
        "controlnet.pose",
        "controlnet_context.pose",
        "controlnet.canny",
        "controlnet_context.canny",
        "vae_decoder",
        "vae_encoder",
    }
    assert [(lora.id, lora.weight) for lora in manifest.loras] == [("style", 1.0), ("character", 0.7)]
    for network in manifest.networks.values():
        check_files(result.folder, network.files, command="")
        assert "relative error" in network.verification
    check_files(result.folder, manifest.files, command="")
    assert all((result.folder / name / "tokenizer_config.json").is_file() for name in manifest.tokenizers)
