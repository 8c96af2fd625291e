"""Choices and bounds of what a caller may ask for."""

from __future__ import annotations

from typing import Final, Literal

__all__ = [
    "DELIVERY",
    "LARGEST_CONTROL_EVERY",
    "LARGEST_GUIDANCE",
    "LARGEST_LORA_WEIGHT",
    "LARGEST_PREVIEW",
    "LARGEST_SEED",
    "LONGEST_SECONDS",
    "METADATA_KEY",
    "SHORTEST_SECONDS",
    "OutputFormat",
    "PaletteName",
    "Priority",
    "Resize",
    "ResponseFormat",
    "Schedule",
    "Scheduler",
]

Scheduler = Literal[
    "euler",
    "euler_a",
    "heun",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "unipc",
    "lcm",
    "tcd",
]
Schedule = Literal["leading", "trailing", "linspace", "karras", "exponential", "beta", "ays"]
"""Where the steps lie."""
OutputFormat = Literal["png", "jpeg", "webp"]
Resize = Literal["stretch", "fit", "fill"]
"""How a control's image gets the size of the picture: `stretch` does not keep its shape, `fit` adds black
borders, `fill` cuts at the centre.
"""
PaletteName = Literal["ade20k", "bdd100k", "cityscapes"]
"""Colours of segmentation maps: `intaglio/imaging/palettes.py` has them."""
ResponseFormat = Literal["bytes", "b64"]
"""How an image travels: its bytes, or base64 text, which fits into JSON."""
LARGEST_CONTROL_EVERY: Final = 150
"""No trajectory has more steps, so a larger value would mean the same."""
LARGEST_GUIDANCE: Final = 50.0
LARGEST_LORA_WEIGHT: Final = 4.0
SHORTEST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 86400.0
"""A day: the bounds of times that requests name."""
LARGEST_PREVIEW: Final = 512
"""Longest side of a preview in pixels."""
LARGEST_SEED: Final = 2**63 - 1
"""Seeds are INT64; the generator uses the low 32 bits as torch's CPU generator does."""
METADATA_KEY: Final = "intaglio"
"""Key of the PNG text chunk, and namespace prefix in XMP, that holds every request parameter as JSON."""
DELIVERY: Final = ("response_format", "priority", "queue_timeout")
"""Inputs that say how a request waits and how its answer travels, and nothing of the picture.

`preprocess` hands them on in its metadata; `postprocess` takes them out, so no picture has them.
"""
Priority = Literal["interactive", "batch"]
"""Levels of requests, the first to be served first."""
