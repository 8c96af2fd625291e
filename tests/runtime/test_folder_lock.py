"""Two runs exclude each other, and a run that was killed excludes nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio.folder_lock import locked

HOLD = """
import sys, time
from pathlib import Path
from intaglio.folder_lock import locked
with locked(Path(sys.argv[1]), work="walk"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_waits_for_the_end_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match="another walk works in it"), locked(path, work="walk"):
            pass
        other.kill()
        other.wait()
    with locked(path, work="walk"):
        pass
    with locked(path, work="walk"):
        pass
