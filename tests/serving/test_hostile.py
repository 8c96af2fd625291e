"""A hostile hour in short form: one process sends what must be refused while another draws pictures.

INTAGLIO_HOSTILE_REQUESTS=2000 is the long form.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from intaglio.serving.server import Server
from intaglio_client import Client, Control, InvalidRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROUND = 800
"""Requests that contain every kind: there are about 680."""
LONG = int(os.environ.get("INTAGLIO_HOSTILE_REQUESTS", "0"))
SECONDS = 30.0
"""Of the attack in short form."""
ATTACKED, ALONE = 4, 2
"""Pictures in turn, with the attacker at work and with the attacker halted. So both are drawn on the same
machine, whatever else it does.
"""
GROWTH = {"tritonserver": 160 << 20, "annotate_0_0": 24 << 20}
"""Bytes that a process may grow by once every kind of request has been sent. Triton keeps the memory of some
messages for the next ones, and the largest has 33 MiB. `annotate` grows by 15 to 16 MiB once, after 3000
requests as after 800.
"""
GROWTH_OF_OTHERS = 16 << 20
SHARED = 3.5
"""Times the usual: the short form's attacker takes its share of the same two cores; 2.5 to 2.8 was seen."""
STALLED = 8.0
"""Times the usual: no picture may ever wait so long, even in short form. On quiet cores, 5.4 was seen."""
ASKED: Any = {"width": 256, "height": 192, "steps": 4}
PROMPTS: tuple[dict[str, Any], ...] = (
    {"prompt": "a person in a room", "seed": 1},
    {"prompt": "a person on a beach", "seed": 2, "loras": [("night", 0.8)]},
    {"prompt": "a dancer in the snow", "seed": 3},
)


def pictures(client: Client) -> Iterator[tuple[int, Any, float]]:
    """Which picture, its pixels, and seconds; without end."""
    while True:
        for index, asked in enumerate(PROMPTS):
            started = time.perf_counter()
            pixels = client.generate(**asked, **ASKED).pixels
            yield index, pixels, time.perf_counter() - started


def attack(server: Server, count: int, *files: Path, seconds: float) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("hostile.py")
    at = (server.grpc_url, server.http_url)
    command = [sys.executable, str(program), *at, str(count), str(seconds), *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def disturbed(
    attacker: subprocess.Popen[str], drawn: Iterator[tuple[int, Any, float]], references: list[Any]
) -> tuple[list[float], list[float]]:
    """Seconds of pictures until `attacker` ends: with it at work, and in between with it halted."""
    waits: list[float] = []
    alone: list[float] = []

    def draw(count: int, times: list[float]) -> None:
        for _ in range(count):
            index, pixels, seconds = next(drawn)
            assert np.array_equal(pixels, references[index])
            times.append(seconds)

    while attacker.poll() is None:
        draw(ATTACKED, waits)
        attacker.send_signal(signal.SIGSTOP)
        try:
            draw(1, [])  # what it asked for last may still be at work
            draw(ALONE, alone)
        finally:
            attacker.send_signal(signal.SIGCONT)
    return waits, alone


def outcome(attacker: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = attacker.communicate(timeout=3300)
    assert attacker.returncode == 0
    found: dict[str, Any] = json.loads(said)
    return found


def test_a_jpeg_of_many_scans_is_refused_quickly(client: Client) -> None:
    """Its pixels are allowed, and its work is not."""
    buffer = io.BytesIO()
    PIL.Image.linear_gradient("L").resize((1024, 1024)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    scans = data[: data.rindex(b"\xff\xd9")] + data[last:-2] * 1500 + b"\xff\xd9"
    control = Control("canny", image=scans, preprocess="canny")
    started = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"images\[0\]"):
        client.generate("a person", **ASKED, controls=[control])
    assert time.perf_counter() - started < 2


def test_nobody_is_disturbed_by_requests_that_are_refused(
    server: Server, client: Client, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.jpg"
    PIL.Image.effect_noise((64, 64), 50).convert("CMYK").save(odd, "JPEG")
    odd.write_bytes(odd.read_bytes()[:-200])
    before = {name: stub.pid for name, stub in server.process.stubs.items()}
    drawn = pictures(client)
    references = [pixels for _, (_, pixels, _) in zip(range(len(PROMPTS)), drawn, strict=False)]
    every_kind = outcome(attack(server, ROUND, odd, seconds=300))
    assert every_kind["wrong"] == {}
    assert every_kind["kinds"] <= every_kind["sent"]
    settled = server.process.resident_bytes()
    attacker = attack(server, LONG or ROUND, odd, seconds=3000 if LONG else SECONDS)
    waits, alone = disturbed(attacker, drawn, references)
    found = outcome(attacker)
    usual = float(np.quantile(alone, 0.9))
    now = server.process.resident_bytes()
    grown = {name: size - settled[name] for name, size in now.items()}
    print(
        f"{found['sent']} requests of {found['kinds']} kinds in {found['seconds']:.0f} s, "
        f"slowest {found['slowest'][0]:.2f} s ({found['slowest'][1]}); "
        f"{len(waits)} pictures, usually {usual:.2f} s, slowest {max(waits):.2f} s; "
        f"grown by { ({name: size >> 20 for name, size in grown.items()}) } MiB"
    )
    assert found["wrong"] == {}
    assert float(np.quantile(waits, 0.9)) <= (2.0 if LONG else SHARED) * usual
    assert max(waits) <= (2.0 if LONG else STALLED) * usual
    assert {name: size for name, size in grown.items() if size > GROWTH.get(name, GROWTH_OF_OTHERS)} == {}
    assert {name: stub.pid for name, stub in server.process.stubs.items()} == before, "nothing died"
