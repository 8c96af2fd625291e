"""`intaglio generate`, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.cli import main
from intaglio.errors import InvalidRequest
from intaglio_client.command import control_from_text, lora_from_text


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
    ("arguments", "code", "says"),
    [
        (["generate"], 2, "prompt: missing"),
        (["generate", "a fox", "--out", "fox.gif"], 2, "out: 'fox.gif'"),
        (
            ["generate", "a fox", "--guidance-scale", "99"],
            2,
            "guidance_scale: 99.0 is out of range; allowed: 0 to 50",
        ),
        (["generate", "a fox", "--url", "127.0.0.1:9", "--deadline", "5"], 75, "is the server running"),
        (["serve", "no/such.yaml"], 1, "no such file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
