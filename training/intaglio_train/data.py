"""Data sets: images, captions and control images, all checked before anything is trained.

`N` samples, `B` of a batch, `H`, `W` pixels. `intaglio_train.config.DataConfig` describes the forms on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intaglio_train.buckets import ExactPlacing, Placing, Size
from intaglio_train.config import DataConfig
from intaglio_train.errors import DataError
from intaglio_train.folder_layouts import samples_of_folder
from intaglio_train.folder_samples import names_beside_arrays
from intaglio_train.image_arrays import arrays_from_folder, arrays_from_npz
from intaglio_train.image_folders import check_samples
from intaglio_train.pictures import Pixels
from intaglio_train.progress import Reporter, SilentReporter

__all__ = ["Dataset", "buckets_of", "open_dataset"]

NAMED = 5
"""How many of the files that were passed over are named."""


class Dataset(Protocol):
    """Checked samples: reading one cannot fail for a reason that its user could have been told before."""

    @property
    def captions(self) -> list[tuple[str, ...]]:
        """The alternatives of each sample."""

    @property
    def repeats(self) -> list[int]:
        """How often an epoch uses each sample."""

    @property
    def geometry(self) -> NDArray[np.float32]:
        """[N,6]: original height and width, top and left of the cut in the resized image, and the height and
        width that are trained, in pixels: SDXL's size conditioning.
        """

    @property
    def digest(self) -> str:
        """Changes with the content: the bytes of every image and control, captions and repeats."""

    def __len__(self) -> int: ...
    def where(self, index: int) -> str: ...  # file, and row if it has rows, of a sample's captions
    def folder(self, index: int) -> str: ...  # the name of the folder that a sample lies in
    def images(self, indices: Sequence[int]) -> Pixels: ...  # [B,H,W,3], of one bucket
    def controls(self, indices: Sequence[int]) -> Pixels: ...  # [B,H,W,3], of one bucket


def buckets_of(dataset: Dataset) -> dict[Size, list[int]]:
    """The samples of every size (width, height) that is trained, sorted by size."""
    found: dict[Size, list[int]] = {}
    for index, (height, width) in enumerate(dataset.geometry[:, 4:].astype(int).tolist()):
        found.setdefault((width, height), []).append(index)
    return dict(sorted(found.items()))


def open_dataset(
    data: DataConfig,
    size: Size,
    *,
    placing: Placing | None = None,
    control: bool = False,
    threads: int = 4,
    reporter: Reporter | None = None,
) -> Dataset:
    """Open and check a data set. Images have `size` = (width, height), unless they lie in files and `placing`
    brings them to a size. `reporter` is told what is passed over.

    Raises:
        DataError: naming the first file, and the row of a table, that is wrong.
    """
    reporter = reporter or SilentReporter()
    source = data.source
    if not source.exists():
        kind = "folder" if data.folder else "file"
        key = "folder" if data.folder else "arrays"
        raise DataError(f"{source}: no such {kind}; data.{key} must exist")
    if data.arrays is not None:
        return arrays_from_npz(data, size, control=control)
    if not source.is_dir():
        raise DataError(f"{source}: is a file; data.folder must be a folder (an .npz goes to data.arrays)")
    if (source / "images.npy").exists():
        _say_passed_over(source, names_beside_arrays(source), reporter)
        return arrays_from_folder(data, size, control=control)
    found = samples_of_folder(data, control=control)
    _say_passed_over(source, found.passed_over, reporter)
    for note in found.notes:
        reporter.note(note)
    samples = found.samples[: data.limit]
    return check_samples(samples, placing or ExactPlacing(size), threads=threads, watch=reporter.watch)


def _say_passed_over(source: Path, names: Sequence[str], reporter: Reporter) -> None:
    if names:
        more = len(names) - NAMED
        others = f" and {more} more" if more > 0 else ""
        reporter.note(f"{source}: passed over: {', '.join(names[:NAMED])}{others}")
