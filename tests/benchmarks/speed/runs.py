"""A results file that is just good enough, to be changed by tests."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from benchmarks.speed.settings import MATCHED, ONE_SLICE, PREVIEWS, SLICES, UNARY

Change = Callable[[dict[str, Any]], object]
_BESIDE_BALLAST_MIB = int(15.5 * 1024)


def taken(seconds: float) -> dict[str, float]:
    """A `spread` without any."""
    return {"median": seconds, "low": seconds, "high": seconds, "n": 5}


def good_results() -> dict[str, Any]:
    """Everything just as required or better."""
    machine = {
        "card": {"name": "Test Card", "driver": "1.2"},
        "processor": "x",
        "cores": 4,
        "commit": "0123456789abcdef",
        "changed": False,
        "versions": {"torch": "2"},
    }
    return {
        "schema": 1,
        "stand_in": None,
        "machine": machine,
        "case": {"width": 1024, "height": 1024, "steps": 30, "control": "pose"},
        "parts": _diffusers_parts() | _intaglio_parts(),
        "psnr": {"served": [41.0, 36.0], "engines": [41.0, 36.0]},
    }


def changed_results(change: Change) -> dict[str, Any]:
    """Good results whose parts `change` has changed."""
    results = copy.deepcopy(good_results())
    change(results["parts"])
    return results


def _stages(**seconds: float) -> dict[str, Any]:
    every = {"text_encoder": 0.001, "text_encoder_2": 0.004, "vae_decoder": 0.025, **seconds}
    return {name: taken(value) for name, value in every.items()}


def _diffusers_parts() -> dict[str, Any]:
    return {
        "eager": {
            "seconds": {"end_to_end": taken(2.4)},
            "stages": _stages(unet=0.047, controlnet=0.023),
        },
        "compiled": {
            "seconds": {"end_to_end": taken(1.7)},
            "stages": _stages(unet=0.033, controlnet=0.017, step=0.051),
            "cfg_step": taken(0.034),
        },
    }


def _intaglio_parts() -> dict[str, Any]:
    engines = _stages(unet=0.030, unet_context=0.0006) | {
        "controlnet.pose": taken(0.015),
        "controlnet_context.pose": taken(0.0008),
        "unet without guidance": taken(0.018),
    }
    sizes = ("1024x1024", "768x1280", "1280x768", "1280x720")
    return {
        "build": {"complete": True, "resumed": False, "seconds": 200.0},
        "engines": {
            "seconds": {"end_to_end": taken(1.4)},
            "stages": engines,
            "step": taken(0.045),
            "options": {"guidance off after half": taken(1.1)},
        },
        "matched": {
            "seconds": {
                "the case": taken(1.5),
                "ControlNet every 2nd step": taken(1.29),
                "ControlNet every 3rd step": taken(1.215),
                "fewer steps": taken(0.8),
                MATCHED: taken(0.7),
            }
        },
        "stream": {
            "seconds": {
                UNARY: taken(1.42),
                ONE_SLICE: taken(1.42),
                SLICES: taken(1.43),
                PREVIEWS: taken(1.44),
            },
            "events": {"first event": taken(0.03), "first slice": taken(0.25)},
        },
        "served": {
            "seconds": {
                "end_to_end": taken(1.42),
                "denoise": taken(1.41),
                "first start to first image": taken(30.0),
                "restart to first image": taken(14.0),
            },
            "card_peak_mib": 12 * 1024,
            "card_free_before_mib": _BESIDE_BALLAST_MIB,
        },
        "build_sizes": {
            "complete": True,
            "resumed": True,
            "seconds": 500.0,
            "card_free_before_mib": _BESIDE_BALLAST_MIB,
        },
        "served_sizes": {
            "card_peak_mib": 12 * 1024 + 512,
            "card_free_before_mib": _BESIDE_BALLAST_MIB,
            "sizes": {name: taken(1.5) | {"n": 10} for name in sizes},
        },
        "variants": {
            "variants": {
                "sdpa": {"pass": taken(0.034), "error": 0.0},
                "query": {"pass": taken(0.033), "error": 0.002},
            }
        },
        "soak": {
            "images": 300,
            "different_from_first": [],
            "card_slope_mib_per_100": 0.0,
            "host_slope_mib_per_100": 0.1,
        },
    }
