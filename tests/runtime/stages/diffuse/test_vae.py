"""Pictures that are not finite are errors; large ones are decoded in tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.case import psnr
from intaglio.engines.interface import Array
from intaglio.errors import IntaglioError
from intaglio.stages.diffuse.stage import Diffuse

from .inputs import int_tensor


def test_a_picture_that_is_not_finite_is_an_error(diffuse: Diffuse, arrays: dict[str, Array]) -> None:
    state = arrays["state"].copy()
    state[0, 0, 0, 3, 3] = np.nan
    with pytest.raises(IntaglioError, match="not finite"):
        diffuse(arrays | {"state": state, "begin": int_tensor(5)})
    assert diffuse(arrays)["pixels"].any()


def test_what_is_too_large_to_decode_at_once_is_decoded_in_tiles(
    tiny: Any, backend: Any, diffuse: Diffuse, arrays: dict[str, Array]
) -> None:
    whole = diffuse(arrays)
    profiles = tiny.manifest.profiles.model_copy(update={"decoder_pixels": 64 * 96 // 2})
    manifest = tiny.manifest.model_copy(update={"profiles": profiles})
    with Diffuse(manifest, tiny.folder, backend=backend) as stage:
        backend.runs.clear()
        tiled = stage(arrays)
        assert backend.runs.count("vae_decoder") == 4, "two halves that overlap are more than a half each"
        broken = whole["state"].copy()
        broken[0, 0, 0, -1, -1] = np.nan
        with pytest.raises(IntaglioError, match="not finite"):  # in one tile of them
            stage(arrays | {"state": broken, "begin": int_tensor(5)})
    np.testing.assert_array_equal(tiled["state"], whole["state"])
    assert tiled["pixels"].shape == whole["pixels"].shape
    assert 20 < psnr(tiled["pixels"], whole["pixels"]) < 100
