"""Streams while the server changes: a new build is taken up, a process of a model dies."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from intaglio.cli import main

from .streams import PlainStream, pixels_of, streamed
from .test_reload import ASKED, Served, served, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
__all__ = ["served"]
LONG: Any = ASKED | {"prompt": "a person on a beach", "steps": 150}


@pytest.mark.long
def test_a_stream_is_drawn_to_its_end_by_the_build_that_it_began_with(served: Served) -> None:
    """And the old build is unloaded after it."""
    long = LONG | {"num_images": 4}  # not over before the new build is there
    before = pixels_of(streamed(served.server.grpc_url, **long).images)
    short = served.picture().tobytes()
    served.build({"night": 0.9})
    with ThreadPoolExecutor(1) as pool:
        with PlainStream(served.server.grpc_url, **long) as stream:
            seen = stream.until("progress")
            reloaded = pool.submit(main, ["reload", str(served.config)])
            while stream.next_into(seen):
                pass
        assert reloaded.result() == 0
    assert seen.error == ""
    assert pixels_of(seen.images) == before
    assert served.picture().tobytes() != short, "the new build draws others"
    wait_for(lambda: served.versions() == {"2"})


@pytest.mark.parametrize("model", ["diffuse", "sdxl_stream"])
def test_a_stream_whose_model_dies_is_told(served: Served, model: str) -> None:
    reference = streamed(served.server.grpc_url, **LONG | {"steps": 3}).images
    ready = served.reports.count("ready")
    with PlainStream(served.server.grpc_url, **LONG) as stream:
        seen = stream.until("progress")
        stubs = served.server.process.stubs
        (instance,) = (name for name in stubs if name.startswith(model))
        os.kill(stubs[instance].pid, signal.SIGKILL)
        while stream.next_into(seen):
            pass
    assert "UNAVAILABLE" in seen.error
    assert seen.images == []
    wait_for(lambda: served.reports.count("ready") > ready)
    assert streamed(served.server.grpc_url, **LONG | {"steps": 3}).images == reference
