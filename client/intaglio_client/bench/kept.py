"""Results on disk. A run's result lies under the key of all that it depends on, and is not measured again.

`NAME.json` is written last, so a run that was stopped has none. Beside it lie perf_analyzer's own files:
`NAME.csv`, `NAME.requests.json` (its export, with digests in the place of pictures) and `NAME.log`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.builds.manifest import content_key, write_json
from intaglio_client.bench.exports import Sample
from intaglio_client.bench.memory import Memory
from intaglio_client.bench.runs import Run

__all__ = ["Kept"]


@dataclass(frozen=True)
class Kept:
    """The results of one server as it is now."""

    folder: Path
    served: Mapping[str, Any]
    """What the server said of its model: another build's results do not count."""
    tool: Mapping[str, Any]
    """perf_analyzer's version and mode."""
    machine: str
    """Processor and card: another machine's results do not count."""

    def samples(self, run: Run) -> list[Sample] | None:
        """What was measured of `run`; None where that is not there, not whole or of something else."""
        try:
            found = [Sample(**sample) for sample in self._read(run)["samples"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if len(found) == run.requests else None

    def memory(self, run: Run) -> Memory | None:
        """The most that the server held meanwhile; None where it was not looked at."""
        try:
            return Memory(**self._read(run)["memory"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(
        self,
        run: Run,
        samples: Sequence[Sample],
        requests: Sequence[Mapping[str, Any]],
        memory: Memory | None = None,
    ) -> None:
        """Write the result of `run`, and every request that perf_analyzer sent."""
        write_json(self.folder / f"{run.name}.requests.json", list(requests))
        found: dict[str, Any] = {"samples": [dataclasses.asdict(sample) for sample in samples]}
        if memory is not None:
            found["memory"] = dataclasses.asdict(memory)
        write_json(self._path(run), {"of": self._key(run), **found})

    def _read(self, run: Run) -> Any:
        """Raises KeyError where the file is of something else, and others where it is not whole."""
        data: Any = json.loads(self._path(run).read_bytes())
        if data["of"] != self._key(run):
            raise KeyError(run.name)
        return data

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run.name}.json"

    def _key(self, run: Run) -> str:
        parts = {"served": self.served, "tool": self.tool, "machine": self.machine, "run": run.digest()}
        return content_key(parts)
