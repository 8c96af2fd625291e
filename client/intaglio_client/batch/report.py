"""What a batch says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intaglio_client.batch.run import Outcome

__all__ = ["data_of", "rows_of", "shortage"]


def data_of(outcome: Outcome, files: Mapping[str, Path]) -> dict[str, Any]:
    """The keys of `--json`."""
    return {
        **files,
        "complete": outcome.is_complete,
        "tried": outcome.tried,
        "accepted": outcome.accepted,
        "rejected": dict(outcome.rejected),
        "drawn": outcome.servers.total(),
        "seconds": round(outcome.seconds, 3),
        "servers": dict(outcome.servers),
        "short_of": list(outcome.short_of),
    }


def rows_of(outcome: Outcome, files: Mapping[str, Path]) -> list[tuple[str, str]]:
    """The table for people."""
    rejected = ", ".join(f"{name} {count}" for name, count in outcome.rejected.most_common())
    rows = [
        ("pictures", f"{outcome.tried}, of which {outcome.accepted} are accepted"),
        ("rejected by", rejected or "none"),
        ("this run", f"{outcome.servers.total()} drawn in {outcome.seconds:.1f} s"),
    ]
    if len(outcome.servers) > 1:
        shares = ", ".join(f"{url} {count}" for url, count in outcome.servers.items())
        rows.append(("servers", shares))
    return [*rows, *((name, str(path)) for name, path in files.items())]


def shortage(outcome: Outcome, wanted: int | None) -> str:
    """Why the batch has fewer accepted pictures than its limits say; empty where it has them."""
    if not outcome.short_of:
        return ""
    rejected = ", ".join(f"{name} rejected {count}" for name, count in outcome.rejected.most_common())
    if outcome.short_of == ("",):
        what = f"{outcome.accepted} of {wanted} are accepted"
    else:
        first = outcome.short_of[0]
        what = (
            f"{len(outcome.short_of)} groups have fewer than {wanted} accepted pictures, the first is {first}"
        )
    return (
        f"{what} after {outcome.tried} pictures ({rejected or 'none was rejected'}); more seeds, a higher "
        "limits.tried or looser filters, and --new-spec, go on with what is there"
    )
