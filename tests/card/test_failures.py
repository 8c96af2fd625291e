"""A card that fails for real: a kernel that writes where it may not, and memory that is full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.measuring.ballast import ballast
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import read_card_memory
from intaglio.errors import Unavailable
from intaglio.serving.versions import REPOSITORY
from intaglio_client import NO_RETRIES, Client

from ..serving.test_recovery import serving
from .conftest import ON_CPU, PROMPT, fused

pytestmark = pytest.mark.usefixtures("nothing_left")
SIZE = {"width": 256, "height": 256, "steps": 2, "seed": 3}
MODEL = '''
from pathlib import Path

from intaglio.errors import DeviceFailed
from intaglio.triton_models.diffuse import DiffuseModel

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry fault()
{
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 16;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""


def fault():
    """Make the card fail: every later call of this process gets the error."""
    from cuda.bindings import driver

    status, module = driver.cuModuleLoadData(PTX)
    assert status == driver.CUresult.CUDA_SUCCESS, status
    status, function = driver.cuModuleGetFunction(module, b"fault")
    assert status == driver.CUresult.CUDA_SUCCESS, status
    driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)


class TritonPythonModel(DiffuseModel):
    """Its card fails once a file says so; a CPU cannot, and says that it did."""

    def open_build(self, manifest, folder):
        super().open_build(manifest, folder)
        advance = self._diffuse.advance

        def failing(drawing):
            wish = Path(FOLDER) / "fault"
            if wish.exists():
                wish.unlink()
                if manifest.target == "cpu":
                    raise DeviceFailed("an illegal memory access was encountered")
                fault()
            advance(drawing)

        self._diffuse.advance = failing
'''


@pytest.mark.card("a card, TensorRT-RTX and Triton: a kernel that writes outside of all memory")
def test_after_an_illegal_access_the_process_is_replaced(miniature: Deployment, tmp_path: Path) -> None:
    """Such an error stays until the process ends, so a server that goes on would fail every request."""
    free = read_card_memory(0)
    fused(miniature, tmp_path, {"mara": 1.0}, name="failing")
    deployment = load_deployment(tmp_path / "failing.yaml")
    program = deployment.build_folder / REPOSITORY / "diffuse" / "1" / "model.py"
    program.unlink()  # it may be a hard link
    program.write_text(f"FOLDER = {str(tmp_path)!r}\n{MODEL}")
    with serving(deployment) as running:
        running.read_until("Ctrl-C stops it")
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            expected = client.generate(PROMPT, **SIZE).pixels
            (tmp_path / "fault").touch()
            with pytest.raises(Unavailable, match="illegal memory access"):
                client.generate(PROMPT, **SIZE)
        running.read_until("the process of diffuse_0_0 died; its log says: error: diffuse:")
        running.read_until("ready")
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            assert np.array_equal(client.generate(PROMPT, **SIZE).pixels, expected)
        running.process.terminate()
        assert running.process.wait(60) == 0
    left = read_card_memory(0)
    if not ON_CPU and free is not None and left is not None:
        assert left.used - free.used < 64 * 2**20, "nothing is left on the card"


@pytest.mark.card("a card whose memory another process fills while the server runs", only=True)
def test_without_memory_a_request_is_refused_and_later_served(miniature: Deployment) -> None:
    """LoRAs and another size need memory when they are first used; out of memory ends nothing."""
    with serving(miniature) as running:
        running.read_until("Ctrl-C stops it")
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            expected = client.generate(PROMPT, **SIZE).pixels
            before = running.children()["diffuse_0_0"].pid
            with ballast(0.0), pytest.raises(Unavailable):
                # New weights need memory, and so does a size that was not drawn yet.
                client.generate(PROMPT, **{**SIZE, "width": 192}, loras=[("mara", 1.0), ("night", 0.5)])
            client.generate(PROMPT, **SIZE, loras=[("mara", 1.0), ("night", 0.5), ("pencil", 0.5)])
            assert np.array_equal(client.generate(PROMPT, **SIZE).pixels, expected)
        assert running.children()["diffuse_0_0"].pid == before
        running.process.terminate()
        assert running.process.wait(60) == 0
