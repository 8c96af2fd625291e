"""The manifest of a build."""

from __future__ import annotations

from pathlib import Path

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import load_deployment
from intaglio_export.build import BuildResult


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
