"""Five ControlNets in the memory of two, through the real server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.sdxl import controlnet_name
from intaglio.errors import IntaglioError, InvalidRequest
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_client import NO_RETRIES, Client, Control, Image
from intaglio_client.parameters import tensors_from_parameters

from .conftest import FUSED_SIZE, REPOSITORY, fused_build
from .test_metrics import metrics_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

CONTROLS = ("pose", "canny", "depth", "segmentation", "normals")
PLACES = 2
PROMPT = "a person in a red sweater waving on a beach"
CLIENTS = 6
REQUESTS = 30


def asked(*controls: str) -> Any:
    """One step with `controls`, whose map is a pose for all of them: only whose weights are used matters."""
    width, height = FUSED_SIZE
    drawn = [Control(control, pose="waving-01") for control in controls]
    return {"width": width, "height": height, "steps": 2, "seed": 3, "controls": drawn}


@pytest.fixture(scope="module")
def shared(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The miniature without LoRAs, two of whose ControlNets are open at the same time."""
    folder = tmp_path_factory.mktemp("shared")
    source = REPOSITORY / "miniature/controlnets"
    fused_build(
        miniature,
        folder,
        {},
        name="shared",
        controlnets={control: {"folder": str(source / control), "type": control} for control in CONTROLS},
        execution={"resident_controlnets": PLACES},
        poses=str(REPOSITORY / "configs/poses"),
    )
    return load_deployment(folder / "shared.yaml")


@pytest.fixture(scope="module")
def pictures(shared: Deployment) -> dict[tuple[str, ...], Any]:
    """By controls, what is drawn where every ControlNet is open."""
    manifest = read_manifest(shared.build_folder)
    execution = manifest.execution.model_copy(update={"resident_controlnets": len(CONTROLS)})
    whole = manifest.model_copy(update={"execution": execution})
    combinations = [(), *((control,) for control in CONTROLS), ("pose", "normals"), ("depth", "canny")]
    with Preprocess(whole, shared.build_folder) as preprocess, Diffuse(whole, shared.build_folder) as diffuse:
        found = {}
        for controls in combinations:
            arrays = preprocess(tensors_from_parameters(PROMPT, asked(*controls)))
            needed = {name: one for name, one in arrays.items() if name not in ("metadata", "output_format")}
            found[controls] = diffuse(needed, wanted=("pixels",))["pixels"][0]
    return found


@pytest.fixture(scope="module")
def server(shared: Deployment) -> Iterator[Server]:
    with Server(shared, endpoints=Endpoints()) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, deadline=60, retries=NO_RETRIES) as connected:
        yield connected


def generate(client: Client, *controls: str) -> Image:
    return client.generate(PROMPT, **asked(*controls))


def resident(server: Server) -> set[str]:
    found = metrics_of(server)
    return {control for control in CONTROLS if found.get(f'controlnet_resident{{control="{control}"}}')}


def test_the_one_used_longest_ago_makes_room(
    server: Server, client: Client, pictures: dict[tuple[str, ...], Any]
) -> None:
    """And every picture is bit for bit the one of a server that has all of them open."""
    assert "; 2 of 5 ControlNets at the same time" in server.memory_report
    assert resident(server) == {"canny", "depth"}, "the first ones by id"
    assert metrics_of(server)["controlnet_swaps_total"] == 0
    for controls, swapped, left in (
        (("depth",), False, {"canny", "depth"}),
        (("pose",), True, {"pose", "depth"}),
        ((), False, {"pose", "depth"}),
        (("pose",), False, {"pose", "depth"}),
        (("normals",), True, {"pose", "normals"}),
        (("pose", "normals"), False, {"pose", "normals"}),
        (("depth", "canny"), True, {"depth", "canny"}),
        (("segmentation",), True, {"canny", "segmentation"}),
    ):
        image = generate(client, *controls)
        assert np.array_equal(image.pixels, pictures[controls]), controls
        assert ("controlnet_swap" in image.timings) == swapped, controls
        assert resident(server) == left, controls
    found = metrics_of(server)
    assert found["controlnet_swaps_total"] == 4
    assert 0 < found["controlnet_swap_seconds"] <= found["controlnet_swap_seconds_total"]


def test_more_than_fit_are_refused_with_the_numbers(client: Client) -> None:
    with pytest.raises(
        InvalidRequest, match=r"3 ControlNets at once: canny \d+\.\d MiB, depth .*at most 2 of the 5"
    ):
        generate(client, "pose", "canny", "depth")
    generate(client, "pose", "canny")


def test_clients_of_different_controls_get_their_own(
    server: Server, pictures: dict[tuple[str, ...], Any]
) -> None:
    """Fewer swaps than requests: those that need none go first."""
    before = metrics_of(server)["controlnet_swaps_total"]
    order = [random.Random(7).choice(list(pictures)) for _ in range(REQUESTS)]

    def draw(controls: tuple[str, ...]) -> bool:
        with Client(server.grpc_url, deadline=60) as mine:
            return np.array_equal(generate(mine, *controls).pixels, pictures[controls])

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(draw, order))
    assert 0 < metrics_of(server)["controlnet_swaps_total"] - before < REQUESTS


def test_a_controlnet_that_does_not_open_fails_alone(
    shared: Deployment, server: Server, client: Client, pictures: dict[tuple[str, ...], Any]
) -> None:
    """Its file is damaged while the server runs; once it is whole again, it serves."""
    generate(client, "pose", "canny")
    path = engine_file(shared, read_manifest(shared.build_folder), "depth")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    replace(path, bytes(damaged))
    with pytest.raises(IntaglioError, match=r"was changed after it was built; rebuild with: intaglio build"):
        generate(client, "depth")
    assert resident(server) == {"pose", "canny"}
    for control in ("canny", "pose", "normals"):
        assert np.array_equal(generate(client, control).pixels, pictures[control,])
    replace(path, whole)
    assert np.array_equal(generate(client, "depth").pixels, pictures["depth",])
    assert metrics_of(server)["controlnet_swap_failures_total"] == 1


def engine_file(deployment: Deployment, manifest: BuildManifest, control: str) -> Path:
    return deployment.build_folder / manifest.networks[controlnet_name(control)].path


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # it is a hard link into the store
    path.write_bytes(content)
