"""Filters as a judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.tune.filter_judge import asked_judge
from intaglio_client.tune.judges import check_paired

from .test_distances import grey

FILTERS = """
filters:
- {kind: exposure, most: 0.5}
- {kind: blank, name: shows-something}
"""
NOISE = np.random.default_rng(0).integers(0, 100, (32, 32, 3), np.uint8)


def written(folder: Path, text: str = FILTERS) -> str:
    (folder / "filters.yaml").write_text(text)
    return str(folder / "filters.yaml")


def test_a_figure_says_whether_a_filter_lets_the_picture_through(tmp_path: Path) -> None:
    judge = asked_judge(written(tmp_path))
    assert judge is not None
    assert judge("a", NOISE) == {"exposure": 1.0, "shows-something": 1.0}
    assert judge("a", grey(200)) == {"exposure": 0.0, "shows-something": 0.0}


def test_scores_are_beside_it_where_they_are_wanted(tmp_path: Path) -> None:
    judge = asked_judge(written(tmp_path), scores=True)
    assert judge is not None
    dark, light = judge("a", grey(51)), judge("a", grey(204))
    assert dark["exposure mean"] == pytest.approx(0.2, abs=0.01)
    assert light["exposure mean"] == pytest.approx(0.8, abs=0.01)
    assert dark["shows-something contrast"] == 0.0
    check_paired(dark, light)


def test_a_path_in_the_file_begins_at_the_file(tmp_path: Path) -> None:
    text = "filters: [{kind: palette, character: mara, file: colours.yaml}]"
    with pytest.raises(ConfigError, match=str(tmp_path / "colours.yaml")):
        asked_judge(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filters: [{kind: duplicates}]", "filter duplicates: kind duplicates asks a server or compares"),
        ("filters: [{kind: identity, character: mara}]", "kind identity asks a server"),
        ("filters: [{kind: nothing}]", "filter 1: kind is 'nothing'"),
        ("filters: [{kind: blank}, {kind: blank}]", "two filters are named blank"),
        ("filters: []", "filters"),
        ("others: 1", "others"),
    ],
)
def test_what_cannot_judge_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        asked_judge(written(tmp_path, text))


def test_a_function_is_a_judge_and_nothing_is_none() -> None:
    assert asked_judge(None) is None
    with pytest.raises(InvalidRequest, match="allowed: MODULE:FUNCTION"):
        asked_judge("no_such_module:f")
