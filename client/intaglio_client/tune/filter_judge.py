"""Filters of a batch as a judge: which share of the pictures each lets through."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationInfo, field_validator

from intaglio.contract.filters import DetectorFilter, DuplicatesFilter, FilterSpec, filters_from_entries
from intaglio.contract.yaml_files import Strict, read_yaml, validated
from intaglio.errors import ConfigError
from intaglio_client.filters.opening import LOCAL
from intaglio_client.filters.verdict import Candidate, Filter
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.judges import Judge, judge_called

__all__ = ["asked_judge", "judge_of_filters"]

_FILES: Final = (".yaml", ".yml")


class _File(Strict):
    filters: tuple[FilterSpec, ...] = Field(min_length=1)

    @field_validator("filters", mode="before")
    @classmethod
    def _of_their_kinds(cls, entries: Any, info: ValidationInfo) -> Any:
        return filters_from_entries(entries, folder=(info.context or {}).get("folder"))


def asked_judge(asked: str | None, *, scores: bool = False) -> Judge | None:
    """The judge that `--judge` names: MODULE:FUNCTION, or a YAML file of filters; None without it.

    Raises:
        InvalidRequest: there is no such function.
        ConfigError: see `judge_of_filters`.
    """
    if asked is None:
        return None
    path = Path(asked)
    if path.suffix.lower() in _FILES:
        return judge_of_filters(path, scores=scores)
    return judge_called(asked)


def judge_of_filters(path: Path, *, scores: bool) -> Judge:
    """The judge of a YAML file with the key `filters` of a batch's specification.

    Its figures are, by the filter's name, 1 for a picture that the filter lets through and 0 for another
    one. With `scores` the filter's own come beside it, as `NAME SCORE`: of those a larger one need not be
    better. A detector has none here, because it counts only what it finds.

    Raises:
        ConfigError: the file or a file of a filter is wrong, or a filter does not judge each picture alone
            and on this machine.
    """
    specs = validated(_File, read_yaml(path), path).filters
    for spec in specs:
        if type(spec) not in LOCAL or isinstance(spec, DuplicatesFilter):
            raise ConfigError(
                f"{path}: filter {spec.name}: kind {spec.kind} asks a server or compares pictures; "
                "allowed: filters that judge each picture alone"
            )
    filters: list[Filter] = [LOCAL[type(spec)](spec) for spec in specs]
    told = {spec.name for spec in specs if scores and not isinstance(spec, DetectorFilter)}

    def judge(name: str, picture: Pixels) -> dict[str, float]:
        figures: dict[str, float] = {}
        for one in filters:
            verdict = one(Candidate(picture, name))
            figures[one.name] = float(verdict.accepted)
            if one.name in told:
                figures |= {f"{one.name} {score}": float(value) for score, value in verdict.scores.items()}
        return figures

    return judge
