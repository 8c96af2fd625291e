"""The card fails while a request is computed: the process ends, Triton restarts, and serves as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import Unavailable
from intaglio.serving.versions import REPOSITORY
from intaglio_client import NO_RETRIES, Client

from .conftest import fused_build
from .test_recovery import serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

ASKED: Any = {"width": 128, "height": 128, "steps": 2, "seed": 3}
MODEL = '''
import time
from pathlib import Path

from intaglio.errors import DeviceFailed, Unavailable
from intaglio.triton_models.diffuse import DiffuseModel

ERRORS = {"lost": DeviceFailed, "memory": Unavailable}


class TritonPythonModel(DiffuseModel):
    """Fails as a card does once a file says so."""

    def open_build(self, manifest, folder):
        super().open_build(manifest, folder)
        advance = self._diffuse.advance

        def failing(drawing):
            for name, error in ERRORS.items():
                wish = Path(FOLDER) / name
                if wish.exists():
                    wish.unlink()
                    time.sleep(1.0)  # others come meanwhile
                    raise error(f"cudaMemcpyAsync: {name}")
            advance(drawing)

        self._diffuse.advance = failing
'''


@pytest.fixture
def failing(miniature: Deployment, tmp_path: Path) -> Deployment:
    """A build without LoRAs whose `diffuse` fails as the files `lost` and `memory` in its folder say."""
    fused_build(miniature, tmp_path, {}, name="failing")
    deployment = load_deployment(tmp_path / "failing.yaml")
    program = deployment.build_folder / REPOSITORY / "diffuse" / "1" / "model.py"
    program.unlink()  # it may be a hard link
    program.write_text(f"FOLDER = {str(tmp_path)!r}\n{MODEL}")
    return deployment


def test_the_process_ends_and_the_next_picture_is_right(failing: Deployment, tmp_path: Path) -> None:
    with serving(failing) as running:
        running.read_until("Ctrl-C stops it")
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            expected = client.generate("a person in a room", **ASKED).pixels
            before = running.children()["diffuse_0_0"].pid

            (tmp_path / "memory").touch()
            with pytest.raises(Unavailable, match="cudaMemcpyAsync: memory"):
                client.generate("a person in a room", **ASKED)
            assert np.array_equal(client.generate("a person in a room", **ASKED).pixels, expected)
            assert running.children()["diffuse_0_0"].pid == before, "out of memory ends nothing"

        def refusal(number: int) -> str:
            with (
                Client(running.url, deadline=60, retries=NO_RETRIES) as client,
                pytest.raises(Unavailable) as refused,
            ):
                client.generate("a person in a room", **ASKED)
            return str(refused.value)

        (tmp_path / "lost").touch()
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(refusal, number) for number in range(4)]
            running.read_until(
                "the process of diffuse_0_0 died; its log says: error: diffuse: cudaMemcpyAsync: lost"
            )
            running.read_until("ready")
            refusals = [one.result() for one in asking]
        assert all("cudaMemcpyAsync: lost" in one for one in refusals), refusals
        assert not (tmp_path / "lost").exists()
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            assert np.array_equal(client.generate("a person in a room", **ASKED).pixels, expected)
        log = (failing.build_folder / "triton.log").read_text(errors="replace")
        (line,) = [line for line in log.splitlines() if "this process ends with status 74" in line]
        assert "cudaMemcpyAsync: lost" in line
        running.process.terminate()
        assert running.process.wait(40) == 0
