"""LoRA files with alphas, ranks, norms and configurations of their own, through the command line and the real
server: the pictures are those of builds that have them fused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from intaglio.cli import main
from intaglio.contract.config import Deployment, load_deployment
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client, Image, InvalidRequest

from ..parity import psnr
from .conftest import FUSED_SIZE, REPOSITORY

pytestmark = pytest.mark.long
CASES = {
    path.stem.replace("_", "-"): path
    for path in sorted((REPOSITORY / "tests/data/loras").rglob("*.safetensors"))
    if path.stem != "nullmeta"
}
FUSED = ("kohya-mixed-alpha", "adapter-model", "dora-in")
"""Those of which a build with the LoRA fused is made too."""


def write_config(folder: Path, miniature: Deployment, name: str, **values: object) -> Path:
    """The miniature without ControlNets; stages are shared with its own build."""
    stages = folder / "build/.stages"
    if not stages.is_symlink():
        stages.parent.mkdir(exist_ok=True)
        stages.symlink_to(miniature.build / ".stages")
    shared = {
        "base": [{"folder": str(REPOSITORY / "miniature/model")}],
        "profiles": {"sizes": [list(FUSED_SIZE)], "text_chunks": 1, "guidance": ["on"]},
        "precision": "fp32",
        "runtime": "onnxruntime",
        "build": "build",
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**shared, **values}))
    return path


def draw(client: Client, loras: list[tuple[str, float]] | None = None) -> Image:
    width, height = FUSED_SIZE
    return client.generate(
        "a person on a beach",
        seed=4,
        steps=3,
        width=width,
        height=height,
        scheduler="euler",
        loras=loras or [],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(scope="module")
def swapping(miniature: Deployment, folder: Path) -> Iterator[Server]:
    """Every case in the registry, put there by the command line, and served."""
    (folder / "loras.yaml").write_text("loras: {}\n")
    config = write_config(folder, miniature, "swapping", registry="loras.yaml", swap="all")
    for name, path in CASES.items():
        add = ["loras", "add", str(path), "--config", str(config), "--id", name, "--kind", "style"]
        assert main(add) == 0
    assert main(["loras", "check", "--config", str(config)]) == 0
    assert main(["build", str(config)]) == 0
    with Server(load_deployment(config), endpoints=Endpoints()) as server:
        yield server


def test_every_case_is_drawn_as_where_it_is_fused(
    miniature: Deployment, folder: Path, swapping: Server
) -> None:
    with Client(swapping.grpc_url, deadline=120) as client:
        base = draw(client).pixels
        swapped = {name: draw(client, [(name, 1.0)]).pixels for name in CASES}
        assert np.array_equal(draw(client).pixels, base)
    for name, pixels in swapped.items():
        assert not np.array_equal(pixels, base), name
    for name in FUSED:
        config = write_config(
            folder, miniature, f"fused-{name}", loras={name: {"path": str(CASES[name])}}, fuse={name: None}
        )
        assert main(["build", str(config)]) == 0
        with (
            Server(load_deployment(config), endpoints=Endpoints()) as server,
            Client(server.grpc_url, deadline=120) as client,
        ):
            assert psnr(draw(client).pixels, swapped[name]) >= 45, name


def test_a_published_file_that_can_never_be_applied_is_the_requests_fault(
    swapping: Server, tmp_path: Path
) -> None:
    """Nobody who asks again would get another answer, so that UNAVAILABLE would be wrong."""
    store = LoraStore(swapping.deployment.build_folder / LORAS_FOLDER)
    before = store.current()
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(CASES["mixed-rank"].read_bytes()[:-8])
    store.publish_version("mixed-rank", store.put("mixed-rank", bad)[0], keep=3)
    try:
        with Client(swapping.grpc_url, deadline=120) as client:
            with pytest.raises(InvalidRequest, match=r"loras: lora mixed-rank: .*cut short or damaged"):
                draw(client, [("mixed-rank", 1.0)])
            assert draw(client, [("dora-out", 1.0)]).pixels.any()
    finally:
        store.write(before)
