"""What importing the client pulls in, and its command line without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from intaglio.cli import main
from intaglio.errors import InvalidRequest
from intaglio_client.client import metadata_of
from intaglio_client.command import control_from_text, lora_from_text


@pytest.mark.parametrize(
    "module",
    ["intaglio_client", "intaglio_client.command", "intaglio.serving.doctor", "intaglio.serving.command"],
)
def test_importing_pulls_in_no_torch(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'onnxruntime', 'intaglio_export', 'intaglio_train'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(f'imports {{found}}' if found else 0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_control_text() -> None:
    control = control_from_text("type=canny,image=photo.png,weight=0.8,end=0.5,preprocess=canny")
    assert (control.type, control.image, control.weight, control.end, control.preprocess) == (
        "canny",
        Path("photo.png"),
        0.8,
        0.5,
        "canny",
    )
    for text in (
        "canny",
        "image=x.png",
        "type=canny,colour=red",
        "type=canny,type=pose",
        "type=canny,weight=heavy",
    ):
        with pytest.raises(InvalidRequest):
            control_from_text(text)


def test_lora_text() -> None:
    assert (lora_from_text("mara").weight, lora_from_text("mara:0.5").weight) == (None, 0.5)
    with pytest.raises(InvalidRequest):
        lora_from_text("mara:much")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate"], "prompt: missing"),
        (["generate", "a fox", "--out", "fox.gif"], "out: 'fox.gif'"),
        (["generate", "a fox", "--steps", "0"], "steps: 0 is out of range; allowed: 1 to 150"),
        (["generate", "a fox", "--url", "127.0.0.1:9", "--deadline", "5"], "is the server running"),
        (["serve", "no/such.yaml"], "no such file"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


def test_an_image_without_metadata_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    PIL.Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(InvalidRequest, match="no intaglio metadata"):
        metadata_of(plain)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        metadata_of(b"not an image")
