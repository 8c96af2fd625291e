"""Ten times what the server can draw, for a short time; `overload` has the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from .overload import QUEUE, overload, quantiles
from .stream_load import copied_deployment

pytestmark = pytest.mark.long

SECONDS = 12.0
FACTOR = 10.0
RECOVERY_SECONDS = 5.0
GROWTH_MIB = 32
SLOWER = 4.0
"""Times the usual before the load: what is usual after it. The machine may have other work by then."""


def test_a_server_under_ten_times_its_load(miniature: Deployment, tmp_path: Path) -> None:
    path = copied_deployment(tmp_path, queue_size=QUEUE)
    with Server(load_deployment(path), endpoints=Endpoints()) as server:
        happened = overload(server, seconds=SECONDS, factor=FACTOR)
    print(happened.summary)
    assert happened.wrong == {}, "everybody gets a picture or is told that the queue is full"
    for kind in ("unary", "stream"):  # the capacity of a busy machine is not the same a moment later
        assert happened.outcomes[f"{kind} refused"] > happened.outcomes[f"{kind} drawn"] > 0
    assert max(happened.depths) <= QUEUE
    assert quantiles(happened.refusals)["p99"] < quantiles(happened.pictures)["p50"] / 2, "not after a wait"
    settled, last = happened.footprints[len(happened.footprints) // 4], happened.footprints[-1]
    assert last.mib - settled.mib < GROWTH_MIB
    assert last.threads <= settled.threads + 4
    assert last.files <= settled.files + 4
    assert happened.usual_after <= SLOWER * happened.usual_before
    # On a busy machine pictures take longer, and so do those that were accepted.
    assert happened.recovered < max(RECOVERY_SECONDS, (QUEUE + 4) * happened.alone)
