"""The keys of a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.errors import ConfigError
from intaglio_client.batch.spec import BatchSpec, read_spec

INPUTS = {"prompt": "a", "seed": 1}


def read(folder: Path, keys: Any) -> BatchSpec:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(keys))
    return read_spec(path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "must be a mapping"),
        ({"input": INPUTS}, "unknown key input; did you mean inputs?"),
        ({}, "nothing to draw; allowed: inputs, rows or both"),
        ({"inputs": INPUTS, "combine": "product"}, "combine is 'product'; allowed: grid, zip or random"),
        ({"inputs": INPUTS, "combine": "random"}, "go together"),
        ({"inputs": INPUTS, "random": {"count": 3}}, "go together"),
        ({"inputs": INPUTS, "limits": {"accepted": 0}}, "limits.accepted is 0"),
        ({"inputs": INPUTS, "limits": {"per": "prompt"}}, "per needs accepted or tried"),
        ({"inputs": INPUTS, "filters": {"kind": "blank"}}, "filters: is no list"),
        ({"inputs": INPUTS, "filters": [{"kind": "blank"}, {"kind": "sharp"}]}, "filter 2: kind is 'sharp'"),
        (
            {"inputs": INPUTS, "filters": [{"kind": "blank"}, {"kind": "blank"}]},
            "two filters are named blank",
        ),
        ({"inputs": INPUTS, "output": {"names": "{seed}"}}, "with {index} among them"),
        ({"inputs": INPUTS, "output": {"names": "../{index}"}}, "output.names"),
        ({"inputs": INPUTS, "output": {"format": "gif"}}, "output.format is 'gif'"),
        ({"inputs": INPUTS, "url": ["http://x"]}, "allowed: host:port of gRPC"),
        ({"inputs": INPUTS, "in_flight": 0}, "in_flight is 0"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, keys: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, keys)
    assert says in str(caught.value)
    assert "spec.yaml" in str(caught.value)


def test_paths_start_at_the_specification(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        {
            "rows": "t.csv",
            "output": {"folder": "out"},
            "filters": [{"kind": "palette", "file": "p.yaml", "character": "mara"}],
        },
    )
    assert (spec.rows, spec.output.folder) == (tmp_path / "t.csv", tmp_path / "out")
    assert spec.filters[0].files == (tmp_path / "p.yaml",)


def test_one_address_is_a_list_of_one(tmp_path: Path) -> None:
    assert read(tmp_path, {"inputs": INPUTS, "url": "a:1"}).url == ("a:1",)
