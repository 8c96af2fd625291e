"""Whether a deployment has a build that can be served here."""

from __future__ import annotations

from pathlib import Path

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment
from intaglio.engines.card import gpu_count
from intaglio.errors import ConfigError, EngineMismatch
from intaglio.serving.versions import REPOSITORY

__all__ = ["check_build", "check_card"]


def check_build(deployment: Deployment) -> BuildManifest:
    """The build of `deployment`. Only the sizes of its files are compared; the processes that open a file
    compare its content.

    Raises:
        EngineMismatch: the deployment is not built, or built from another configuration, or files are missing
            or of another size.
    """
    folder, command = deployment.build_folder, _rebuild_command(deployment)
    manifest = read_manifest(folder, command=command)
    if manifest.config_digest != deployment.digest:
        config = f"{deployment.name}.yaml"
        raise EngineMismatch(
            f"{folder} was built from another configuration than {config} is now", command=command
        )
    check_files(folder, manifest.listed, command=command, digest=None)
    if not (folder / REPOSITORY).is_dir():
        raise EngineMismatch(f"{folder / REPOSITORY} is missing", command=command)
    return manifest


def check_card(manifest: BuildManifest) -> None:
    """Raise ConfigError where the build needs a card and CUDA sees none.

    Whether a card that is there is the right one, the process that opens the engines says.
    """
    if manifest.runtime == "onnxruntime" or gpu_count():
        return
    raise ConfigError(
        f"the build needs a card ({manifest.target}, {manifest.runtime}), and CUDA sees none here; "
        "nvidia-smi says whether the driver works, docker needs --gpus all, and CUDA_VISIBLE_DEVICES may "
        "hide every card. "
        "`runtime: onnxruntime` builds for a machine without one"
    )


def _rebuild_command(deployment: Deployment) -> str:
    path, here = deployment.folder / f"{deployment.name}.yaml", Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"intaglio build {shown}"
