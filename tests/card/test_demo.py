"""The first command that a user types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from intaglio.contract.config import load_deployment
from intaglio_client.demo import POSE

from ..serving.test_demo import check_picture
from .asked import DEMO
from .conftest import CONFIG, ON_CPU, decibels

DEMO_SECONDS = 120
BUILD_SECONDS = 75


@pytest.mark.card("a card, TensorRT-RTX and Triton: the demo from nothing to its picture")
@pytest.mark.usefixtures("nothing_left")
def test_the_demo_draws_its_picture_in_time(tmp_path: Path, record: Callable[..., None]) -> None:
    """Its picture is in the pose and dressed as the prompt says, and close to the CPU's."""
    out = Path(os.environ.get("INTAGLIO_CARD_PICTURE", tmp_path / "demo.png"))
    began = time.perf_counter()
    command = [sys.executable, "-m", "intaglio", "demo", str(CONFIG), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    seconds = time.perf_counter() - began
    said = done.stdout + done.stderr
    record(demo_seconds=round(seconds, 1), demo_output=done.stdout[-9000:])
    assert done.returncode == 0, said[-3000:]
    built = re.search(r"^build +([\d.]+) s", done.stdout, re.MULTILINE)
    assert built is not None, said[-3000:]
    drawn = np.asarray(PIL.Image.open(out))
    record(
        build_seconds=float(built[1]),
        demo_stages_done=len(re.findall(r" done +", done.stdout)),
        demo_decibels_to_the_cpu=round(decibels(drawn, np.asarray(PIL.Image.open(DEMO))), 1),
    )
    poses = load_deployment(CONFIG).poses
    assert poses is not None
    check_picture(drawn, poses / f"{POSE}.json")
    assert decibels(drawn, np.asarray(PIL.Image.open(DEMO))) >= 30
    if not ON_CPU:
        assert float(built[1]) <= BUILD_SECONDS
        assert seconds <= DEMO_SECONDS
