"""`intaglio generate`, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from intaglio.cli import main
from intaglio.contract.models import Scheduler
from intaglio.errors import InvalidRequest
from intaglio.request.request import CONTROL_KEYS
from intaglio_client.address import URL_VARIABLE
from intaglio_client.generate.option_texts import control_from_text, lora_from_text


def test_help_names_what_may_be_chosen() -> None:
    """Every scheduler, and every key of --control with an example."""
    done = subprocess.run(
        [sys.executable, "-m", "intaglio", "generate", "--help"],
        env={**os.environ, "COLUMNS": "600", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for name in get_args(Scheduler):
        assert f"{name}," in done.stdout or f"{name}." in done.stdout
    for key in CONTROL_KEYS:
        assert f"{key}=" in done.stdout
    assert "INTAGLIO_URL" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "3", "--num-inference-steps", "4"], "steps: 3 and 4; allowed: one value"),
        (["--cfg", "3", "--cfg-scale", "4"], "guidance_scale: 3.0 and 4.0; allowed: one value"),
        (["--scheduler", "euler_b"], "did you mean euler_a?"),
        (["--url", "http://127.0.0.1:8000"], "url: 'http://127.0.0.1:8000'; allowed: host:port of gRPC"),
        (["--control-guidance-end", "0.5"], "control_guidance_end: there are no controls"),
    ],
)
def test_names_that_contradict_and_addresses_of_http(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a fox", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_the_address_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "grpc://elsewhere")
    assert main(["generate", "a fox"]) == 2
    assert "url: 'grpc://elsewhere'" in capsys.readouterr().err


def test_control_text() -> None:
    control = control_from_text("type=canny,image=photo.png,weight=0.8,end=0.5,every=2,preprocess=canny")
    assert (control.type, control.image, control.weight, control.end, control.every, control.preprocess) == (
        "canny",
        Path("photo.png"),
        0.8,
        0.5,
        2,
        "canny",
    )
    for text in (
        "canny",
        "image=x.png",
        "type=canny,colour=red",
        "type=canny,type=pose",
        "type=canny,weight=heavy",
        "type=canny,every=often",
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
        (["generate", "-q"], 2, "prompt: missing"),
        (["generate", "-q", "a fox", "--image", "x.png"], 2, "image: given without --like; allowed: beside"),
        (["generate", "-q", "a fox", "--url", "a..b:8001"], 2, "url: 'a..b:8001'; allowed: host:port"),
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
