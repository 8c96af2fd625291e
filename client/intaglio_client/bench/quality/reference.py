"""A folder of reference pictures, and how far what was drawn is from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ConfigError
from intaglio_client.bench.quality.frechet import fid, kid
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.judges import Extractor
from intaglio_client.video.pictures import decoded
from intaglio_client.video.sources import sources_of

__all__ = ["FEW", "Reference", "features_of"]

FEW: Final = 2048
"""Pictures below which a FID is not compared with published ones, which take 10 000 and more. With fewer
pictures than an extractor has features (Inception: 2048) a covariance has not even full rank.
"""


def features_of(extractor: Extractor, pictures: Iterable[Pixels]) -> NDArray[np.float64]:
    """[pictures, features]"""
    return np.stack([extractor.output(pixels) for pixels in pictures])


class Reference:
    """The features of a folder's pictures."""

    def __init__(self, folder: Path, extractor: Extractor) -> None:
        """Raises ConfigError where the folder holds fewer than two pictures, or one that cannot be read."""
        self.folder = folder
        paths = sources_of([str(folder)]).paths
        if len(paths) < 2:
            raise ConfigError(f"{folder}: {len(paths)} pictures; at least 2 are needed")
        self._extractor = extractor
        self._features = features_of(extractor, (np.asarray(decoded(path), dtype=np.uint8) for path in paths))

    def compared(self, pictures: Iterable[Pixels]) -> dict[str, float]:
        """FID and KID of what was drawn."""
        found = features_of(self._extractor, pictures)
        return {"fid": fid(found, self._features), "kid": kid(found, self._features)}

    def data(self, found: Mapping[str, Mapping[str, float]], *, drawn: int) -> dict[str, Any]:
        """FID and KID by row, with what a reader must know of them."""
        return {
            "folder": str(self.folder),
            "pictures": len(self._features),
            "features": self._features.shape[1],
            "drawn": drawn,
            "rows": {name: dict(one) for name, one in found.items()},
        }
