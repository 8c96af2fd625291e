"""The commands of docs/datasets.md run as they are written, and its tables are the code's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from intaglio_train.config import DataConfig
from intaglio_train.datasets.bdd_command import TEMPLATE
from intaglio_train.datasets.bdd_words import FIELDS
from intaglio_train.datasets.table import Layout, split_of
from intaglio_train.folder_layouts import samples_of_folder

from ...pages import ROOT, blocks, run_shell
from .bdd_labels import CAPTIONS, newer_frames

PAGE = "docs/datasets.md"
SPLIT = Layout(validation=0.1)
"""As the page asks for."""


def test_the_page_of_datasets(tmp_path: Path) -> None:
    labels = tmp_path / "bdd100k/labels/det_20/det_train.json"
    labels.parent.mkdir(parents=True)
    labels.write_text(json.dumps(newer_frames()))
    random = np.random.default_rng(0)
    for name in CAPTIONS:
        for folder, suffix in (("images", "jpg"), ("colormaps", "png")):
            path = tmp_path / "bdd100k" / folder / f"{Path(name).stem}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(random.integers(0, 256, (360, 640, 3), np.uint8)).save(path)
    assert run_shell(PAGE, tmp_path) == 1
    found = samples_of_folder(DataConfig(folder=str(tmp_path / "street")), control=True)
    samples = {sample.image.name: sample.captions for sample in found.samples}
    trained_on = {name: (text,) for name, text in CAPTIONS.items() if split_of(name, SPLIT) == "train"}
    assert samples == trained_on


def test_the_page_has_the_fields_and_the_packaged_template() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, meaning in FIELDS.items():
        assert f"| `{name}` | {meaning} |" in text
    assert ("text", TEMPLATE.read_text(encoding="utf-8")) in blocks(PAGE)
