"""What bounds a network, by hand; the table, and the plot of a file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from intaglio.cli import main
from intaglio.errors import ConfigError
from intaglio_client.bench.roofline.figures import SCHEMA, cells_of, notes_of, placed, read_roofline
from intaglio_client.bench.roofline.plot import drawn_roofline

CEILINGS = {
    "precision": "fp16",
    "operations_a_second": {"product": 100e9, "convolution": 200e9, "attention": 50e9},
    "bytes_a_second": 10e9,
}


def network(
    name: str, *, product: float = 0.0, attention: float = 0.0, moved: float, seconds: float
) -> dict[str, Any]:
    operations = {"product": product, "convolution": 0.0, "attention": attention}
    found = {"network": name, "equal": [], "sizes": {}, "operations": operations, "bytes": moved}
    return placed({**found, "seconds": seconds}, CEILINGS)


def test_a_network_that_computes_much_is_bound_by_its_slowest_kind() -> None:
    found = network("unet", product=100e9, attention=100e9, moved=10e9, seconds=4.0)
    assert found["floor_seconds"] == pytest.approx(1 + 2), "each kind at its own speed, one after the other"
    assert found["share"] == pytest.approx(0.75)
    assert found["bound"] == "attention"
    assert found["operations_a_byte"] == pytest.approx(20)
    assert found["operations_a_second"] == pytest.approx(50e9)


def test_a_network_that_moves_much_is_bound_by_memory() -> None:
    found = network("text_encoder", product=1e9, moved=10e9, seconds=2.0)
    assert (found["floor_seconds"], found["share"], found["bound"]) == (1.0, 0.5, "memory")


def roofline(**changes: Any) -> dict[str, Any]:
    unet = network("unet", product=100e9, attention=100e9, moved=10e9, seconds=4.0)
    text = network("text_encoder", product=1e9, moved=10e9, seconds=2.0)
    return {
        "schema": SCHEMA,
        "machine": {"card": None, "processor": "a processor"},
        "build": {"config": "plate", "runtime": "onnxruntime", "precision": "fp32"},
        "picture": {"width": 64, "height": 64, "guidance": True, "images": 1},
        "ceilings": CEILINGS,
        "networks": [unet | {"equal": ["unet_too"]}, text],
    } | changes


def test_the_table_and_what_stands_below_it() -> None:
    data = roofline()
    assert cells_of(data)[0] == [
        "unet",
        "4e+03",
        "200",
        "1e+04",
        "20.0",
        "50",
        "2.5",
        "3e+03",
        "75 %",
        "attention",
    ]
    notes = "\n".join(notes_of(data))
    assert "product 100 GFLOP/s" in notes
    assert "copies 10 GB/s" in notes
    assert "unet_too: the same graph as unet" in notes


def test_a_file_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "roofline.json"
    path.write_text(json.dumps(roofline()))
    assert main(["bench", "roofline", str(path), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "roofline.png")
    picture = PIL.Image.open(tmp_path / "roofline.png")
    assert min(picture.size) > 500
    assert picture.tobytes() == PIL.Image.open(io.BytesIO(drawn_roofline(roofline()))).tobytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    for text in ("[]", "{", json.dumps(roofline(schema=0))):
        (tmp_path / "roofline.json").write_text(text)
        with pytest.raises(ConfigError, match=r"roofline"):
            read_roofline(tmp_path / "roofline.json")


@pytest.mark.parametrize("size", ["64", "64x", "axb"])
def test_a_size_is_two_numbers(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "roofline", "configs/miniature.yaml", "--size", size]) == 1
    assert "allowed: WIDTHxHEIGHT" in capsys.readouterr().err
