"""Keeps diffusers' and transformers' progress bars and notes out of the build's own."""

from __future__ import annotations

import warnings

import diffusers
import transformers

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """For the rest of the process, or of a block with `warnings.catch_warnings`."""
    diffusers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")
