"""Which weights of a graph a running server may replace with LoRAs, by the name of their initializer."""

from __future__ import annotations

from intaglio.contract.config import Swap

__all__ = ["is_swapped"]


def is_swapped(name: str, dimensions: int, swap: Swap) -> bool:
    """Whether `swap` covers an initializer of this name and number of dimensions.

    Names are `<wrapper>.<module>.weight`, with `.T` appended where the matrix is transposed. `transformer`
    covers the matrices of the UNet's attention blocks, their projections included, and of the text encoders.
    `all` covers every matrix and kernel.
    """
    wrapper, _, rest = name.removesuffix(".T").partition(".")
    if swap == "off" or not rest.endswith(".weight") or "embeddings." in rest:
        return False
    if wrapper == "network":  # a text encoder
        return dimensions == 2
    if wrapper != "unet":
        return False
    if swap == "transformer":
        return dimensions == 2 and ".attentions." in rest
    return dimensions in (2, 4)
