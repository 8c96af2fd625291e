"""The presets that a build publishes, checked as the requests that will name them."""

from __future__ import annotations

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.contract.ports import string_tensor
from intaglio.contract.presets import Presets, load_presets
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.request.read import read_request
from intaglio_export.deployment.preset_loras import check_preset_loras

__all__ = ["checked_presets"]


def checked_presets(deployment: Deployment, manifest: BuildManifest) -> Presets:
    """The presets of `deployment`; none where it names no file.

    Each quality preset is read as a request to the build of `manifest`, so that values that do not go
    together are found too.

    Raises:
        ConfigError: what `load_presets` and `check_preset_loras` refuse, or a preset that such a request
            refuses.
    """
    if deployment.presets is None:
        return Presets()
    presets = load_presets(deployment.presets)
    check_preset_loras(deployment, presets)
    for preset in presets.quality:
        tensors = {"prompt": string_tensor("a prompt"), "preset": string_tensor(preset)}
        try:
            read_request(tensors, manifest, presets=presets)
        except InvalidRequest as error:
            raise ConfigError(f"{deployment.presets}: quality.{preset}: {error}") from error
    return presets
