"""The blocks of docs/labels.md run as they are written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from intaglio.contract.filters import filter_from_entry

from ...pages import ROOT, blocks
from ...photographs import one_person, photograph


def test_the_page_of_labels(tmp_path: Path) -> None:
    (tmp_path / "miniature").symlink_to(ROOT / "miniature")
    (tmp_path / "photos").mkdir()
    photograph("skimage", "data/motorcycle_left.png").save(tmp_path / "photos/street.jpg")
    one_person().save(tmp_path / "photos/portrait.jpg")
    found = [(language, text) for language, text in blocks("docs/labels.md") if language]
    assert [language for language, _ in found] == ["bash", "yaml", "yaml"]
    (_, shell), (_, rules), (_, filters) = found
    label = (
        line.split() for line in run(shell, tmp_path).splitlines() if re.match(r"\d+( [\d.]+){4}$", line)
    )
    names = yaml.safe_load((tmp_path / "labelled/data.yaml").read_text())["names"]
    assert "motorcycle" in {names[int(number)] for number, *_ in label}
    (tmp_path / "rules.yaml").write_text(rules)
    run(shell.splitlines()[0] + " --rules rules.yaml", tmp_path)
    records = map(json.loads, (tmp_path / "labelled/objects.jsonl").read_text().splitlines())
    reasons = {record["picture"]: record["reason"] for record in records}
    assert reasons["portrait.jpg"] == "0 bus, required: at least 1"
    (entry,) = yaml.safe_load(filters)["filters"]
    assert filter_from_entry(entry, folder=tmp_path).kind == "detector"


def run(shell: str, folder: Path) -> str:
    """What the commands print."""
    code = re.sub(r"^intaglio ", f"{sys.executable} -m intaglio ", shell, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-eu", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
