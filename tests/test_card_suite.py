"""`make test-card` without a card: each of its tests is skipped and says what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.engines.card import gpu_capability

SUITE = Path(__file__).parent / "card"


@pytest.mark.slow
@pytest.mark.skipif(gpu_capability(0) is not None, reason="there is a card here")
def test_each_test_is_skipped_with_what_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INTAGLIO_CARD")}
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(SUITE)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
        check=False,
        cwd=SUITE.parents[1],
    )
    counted = re.search(r"^(\d+) skipped", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout + done.stderr
    reasons = re.findall(r"^SKIPPED \[(\d+)\] .*no NVIDIA card; needs a card", done.stdout, re.MULTILINE)
    assert sum(map(int, reasons)) == int(counted[1]) >= 15
