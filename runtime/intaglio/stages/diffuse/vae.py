"""Latents -> pixels, in passes of a built batch, and in tiles where a picture is too large for one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import axis_sizes
from intaglio.engines.host_call import HostCall
from intaglio.errors import InvalidRequest
from intaglio.sampling.tiles import blend_tiles, latent_tiling
from intaglio.stages.diffuse.passes import image_passes

__all__ = ["VaeDecoder"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class VaeDecoder:
    """The network `vae_decoder` as a function of latents."""

    def __init__(self, call: HostCall, *, manifest: BuildManifest) -> None:
        self._call = call
        self._architecture = manifest.architecture
        self._profiles = manifest.profiles
        self._scaling_factor = np.float32(manifest.scaling_factor)
        self._statistics = _statistics(manifest)

    def __call__(self, latents: Floats) -> Pixels:
        """[B, H, W, 3] of latents [B, 4, h, w].

        Raises:
            InvalidRequest: the picture has values that are not finite.
        """
        parts = [
            self._decode_pass(self._decoder_input(latents[images]))
            for images in image_passes(len(latents), self._profiles.batches)
        ]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _decoder_input(self, latents: Floats) -> Floats:
        """[B, 4, h, w] of a trajectory's latents, as diffusers' SDXL pipelines give them to the decoder."""
        scaled: Floats = latents / self._scaling_factor
        if self._statistics is None:
            return scaled
        mean, std = self._statistics
        moved: Floats = scaled * std + mean
        return moved

    def _decode_pass(self, latents: Floats) -> Pixels:
        images, _, height, width = latents.shape
        scale = self._architecture.vae_scale
        tiling = latent_tiling(self._profiles, self._architecture, width=width, height=height)
        tiles = (
            self._decode_tile(latents[:, :, top : top + tiling.height, left : left + tiling.width])
            for top, left in tiling.places
        )
        shape = (images, height * scale, width * scale, 3)
        return blend_tiles(tiling.scaled(scale), tiles, shape=shape)

    def _decode_tile(self, latents: Floats) -> Pixels:
        images, _, height, width = latents.shape
        scale = self._architecture.vae_scale
        sizes = axis_sizes(self._architecture, width=width * scale, height=height * scale, images=images)
        outputs = self._call(sizes, latent_sample=latents)
        # Of values that are not finite the bytes would be a black picture, or anything.
        if not np.isfinite(outputs["magnitude"]).all():
            raise InvalidRequest(
                "picture",
                "has values that are not finite: the networks overflowed on this request",
                allowed="smaller weights of LoRAs and controls, or a build whose VAE stays inside float16",
            )
        pixels: Pixels = outputs["pixels"]
        return pixels


def _statistics(manifest: BuildManifest) -> tuple[Floats, Floats] | None:
    """Mean and standard deviation of the VAE's latents, [4, 1, 1] each; None unless it has both."""
    if manifest.latents_mean is None or manifest.latents_std is None:
        return None
    mean = np.array(manifest.latents_mean, np.float32)
    std = np.array(manifest.latents_std, np.float32)
    return mean[:, None, None], std[:, None, None]
