"""What `intaglio doctor` knows so far of the sources of one deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from intaglio.contract.config import Deployment
from intaglio.errors import IntaglioError
from intaglio.serving.findings import Finding
from intaglio_export.engines.platform import Platform
from intaglio_export.weights.hub import AbsentError, NotFetchedError
from intaglio_export.weights.sources import Base, Weights

__all__ = ["SourceReport", "problem_and_fix", "size_text"]

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass
class SourceReport:
    """The sources of `deployment` that were found, and what a build would download."""

    deployment: Deployment
    path: Path
    """Of the YAML file."""
    platform: Platform | None = None
    """What a build compiles for; None where it cannot."""
    base: Base | None = None
    """None where it is not here."""
    networks: dict[str, Weights] = field(default_factory=dict)
    """The networks beside the base that are here: `vae`, `controlnet.<id>`."""
    to_fetch: dict[str, int] = field(default_factory=dict)
    """Bytes to download by source."""
    lacks_configurations: bool = False
    """Whether the base is a single file here, and only what it leaves out is to be downloaded."""

    @property
    def build(self) -> str:
        """The command that builds the deployment."""
        return f"intaglio build {self.path}"

    def to_download(self, what: str, error: NotFetchedError, *, named: str = "") -> Finding:
        """`what` would be downloaded. `named` is what the configuration names, where that is another."""
        self.to_fetch[what] = error.size
        detail = f"{error.source}: {size_text(error.size)} to download"
        if named and named != error.source:
            detail = f"{named}: its configurations come from {detail}"
        return Finding(what, "note", detail, self.build)

    def refused(self, what: str, error: IntaglioError, *, from_hub: bool = False) -> Finding:
        """`what` ends a build with `error`; `from_hub`: the hub may have it when it can be asked."""
        detail, fix = problem_and_fix(str(error).removeprefix(f"{what}: "))
        if from_hub and isinstance(error.__cause__, AbsentError):
            alternative = f"with the hub in reach: {self.build}"
            fix = f"{fix}, or {alternative}" if fix else alternative
        return Finding(what, "missing", detail, fix)


def problem_and_fix(message: str) -> tuple[str, str]:
    """What is wrong, and what would be right, which an error's message has after its last semicolon."""
    problem, _, fix = message.rpartition("; ")
    return (problem, fix) if problem else (message, "")


def size_text(count: int) -> str:
    """A number of bytes for people: `6.46 GiB`."""
    power = min(max(count.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    value = count / 2 ** (10 * power)
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} {_UNITS[power]}"
