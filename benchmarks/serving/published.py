"""MLPerf Inference, closed division, stable-diffusion-xl: the published results that ours stand beside.

Source: `summary_results.json` of mlcommons/inference_results_v5.1 and `mlperf_log_summary.txt` of
mlcommons/inference_results_v4.1, below the folders that are named. No H200 has a result of SingleStream: it
was submitted to the suite of data centres only, which lacks that scenario.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from intaglio_client.bench.workload import Scenario

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """One result of one system."""

    scenario: Scenario
    version: str
    """The round."""
    place: str
    """Folder of the result in the round's repository."""
    cards: int
    card: str
    precision: str
    value: float
    """Samples a second of Offline, queries a second of Server, seconds (90th percentile) of SingleStream."""

    @property
    def of_one_card(self) -> float:
        """The value, divided by the cards where it is a rate."""
        return self.value if self.scenario == "SingleStream" else self.value / self.cards


_QUANTA: Final = "closed/Quanta_Cloud_Technology/results/D74U-7U_H200-SXM-141GBx8_TRT"
_CISCO: Final = "closed/Cisco/results/C885_H200x8_TRT"
_NVIDIA: Final = "closed/NVIDIA/results/H200-SXM-141GBx8_TRT"
_GH200: Final = "closed/NVIDIA/results/GH200-GraceHopper-Superchip_GH200-144GB_aarch64x1_TRT"
_LENOVO: Final = "closed/Lenovo/results/SE100_RTX2000E_Ada_16GBx1_TRT"
_H200: Final = "H200-SXM-141GB"
_MIXED: Final = "UNet fp8, VAE int8, text encoders fp16"
PUBLISHED: Final = (
    Published("Offline", "v5.1", _QUANTA, 8, _H200, "fp8", 19.189),
    Published("Server", "v5.1", _QUANTA, 8, _H200, "fp8", 18.4233),
    Published("Offline", "v5.1", _CISCO, 8, _H200, _MIXED, 19.1227),
    Published("Server", "v5.1", _CISCO, 8, _H200, _MIXED, 18.3718),
    Published("Offline", "v4.1", _NVIDIA, 8, _H200, "fp8", 17.4186),
    Published("Server", "v4.1", _NVIDIA, 8, _H200, "fp8", 16.78),
    Published("Offline", "v4.1", _GH200, 1, "GH200-144GB", "fp8", 2.30033),
    Published("Server", "v4.1", _GH200, 1, "GH200-144GB", "fp8", 2.02),
    Published("SingleStream", "v5.1", _LENOVO, 1, "RTX-2000E-Ada-16GB", "fp8", 7.479348703),
)
