"""Photographs and controls through the real server: what is made of them, and what is refused."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil
import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.detectors import DetectorSource
from intaglio.contract.models import SDXL
from intaglio.detectors.detection import Detection
from intaglio.detectors.dwpose import DwposeDetector
from intaglio.detectors.pose import PoseDetector
from intaglio.detectors.sizing import sized
from intaglio.errors import InvalidRequest
from intaglio.imaging.openpose import pose_document
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client, Control, ServerError
from intaglio_client.connections.requests import Request
from intaglio_export.build import BuildOptions, build_deployment

from ..photographs import nobody, one_person, street, two_people
from ..processes import commands_below
from ..runtime.detectors.graphs import write_simcc
from .conftest import REPOSITORY, Silent

pytestmark = pytest.mark.slow

DETECTORS = REPOSITORY / "miniature/detectors"
DEADLINE_SECONDS = 6.0
"""The detectors' process starts and reads a photograph in one second on an idle machine."""
SIZE = (256, 192)
ASKED: dict[str, Any] = {"steps": 1, "seed": 5, "width": SIZE[0], "height": SIZE[1]}


def png(photo: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()


def whole(folder: Path) -> DetectorSource:
    """DWPose's layout: each person's 133 keypoints lie on a line through the box."""
    places = np.arange(133) % 90
    peaks = np.stack([places, np.ones(133), places, np.ones(133)], axis=1)
    file = write_simcc(folder / "simcc.onnx", peaks, (48, 64))
    return DetectorSource(kind="dwpose", file=file, persons=DETECTORS / "nanodet.onnx", hands=True)


@pytest.fixture(scope="module")
def deployment(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The miniature with two detectors of poses, one without its weights, and two of wrong files."""
    folder = tmp_path_factory.mktemp("controls")
    (folder / "miniature").symlink_to(REPOSITORY / "miniature")
    (folder / "configs").mkdir()
    for path in (REPOSITORY / "configs").iterdir():
        (folder / "configs" / path.name).symlink_to(path)
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(miniature.build / ".stages")  # nothing is compiled again
    (folder / "damaged.onnx").write_bytes(b"this is no network")
    values = yaml.safe_load((REPOSITORY / "configs/miniature.yaml").read_text())
    people = values["detectors"]["pose"]
    values["detectors"] = {
        "people": people,
        "depth": {"kind": "depth", "file": "../midas.onnx"},
        "damaged": {"kind": "depth", "file": "../damaged.onnx"},
        "whole": whole(folder).model_dump(mode="json", include={"kind", "file", "persons", "hands"}),
        "wrong": {"kind": "dwpose", "file": people["file"]},
    }
    values["detector_process"] = {"deadline_seconds": DEADLINE_SECONDS, "idle_seconds": 3.0}
    config = folder / "configs/controls.yaml"
    config.write_text(yaml.safe_dump(values))
    build_deployment(config, BuildOptions(), reporter=Silent())
    return load_deployment(config)


@pytest.fixture(scope="module")
def served(deployment: Deployment) -> Iterator[Server]:
    with Server(deployment, endpoints=Endpoints()) as running:
        yield running


@pytest.fixture
def asking(served: Server) -> Iterator[Client]:
    with Client(served.grpc_url, deadline=120) as client:
        yield client


def own(photo: PIL.Image.Image) -> Detection:
    """What the detector itself makes of `photo`."""
    return PoseDetector(DETECTORS / "movenet-lightning.onnx", DETECTORS / "nanodet.onnx")(photo, name="a")


def workers(server: Server) -> list[psutil.Process]:
    """The processes of detectors."""
    commands = commands_below(server.process.pid)
    return [child for child, command in commands.items() if "intaglio.detectors.worker" in command]


@pytest.mark.parametrize("photo", [one_person, two_people, street], ids=["one", "two", "street"])
def test_keypoints_are_the_detectors_own(asking: Client, photo: Any) -> None:
    picture = photo()
    expected = own(picture)
    found = asking.annotate(picture, "pose")
    assert expected.people is not None
    width, height = picture.size
    assert found.keypoints == pose_document(expected.people, width=width, height=height)
    np.testing.assert_array_equal(np.asarray(found.decode()), expected.map)
    assert (found.detector, found.type) == ("people", "pose")
    assert asking.annotate(picture, "people", size=(96, 64), resize="fit").decode().size == (96, 64)


def test_hands_are_read_and_drawn_too(asking: Client, tmp_path: Path) -> None:
    photo = two_people()
    expected = DwposeDetector(whole(tmp_path))(photo, name="a")
    assert expected.people is not None
    for size in (photo.size, SIZE):
        found = asking.annotate(photo, "whole", size=size)
        detection = sized(expected, size, "stretch")
        assert detection.people is not None
        document = pose_document(detection.people, width=size[0], height=size[1])
        assert found.keypoints == json.loads(json.dumps(document))
        np.testing.assert_array_equal(np.asarray(found.decode()), detection.map)
        assert [any(one["hand_left_keypoints_2d"]) for one in document["people"]] == [True, True]


def test_a_picture_is_drawn_from_a_photograph(asking: Client) -> None:
    """It is the picture that is drawn from the map which `annotate` makes."""
    photo = two_people()
    drawn = asking.generate(
        "a person", **ASKED, controls=[Control("pose", image=photo, preprocess="auto", resize="fill")]
    )
    shown = asking.annotate(photo, "pose", size=SIZE, resize="fill")
    np.testing.assert_array_equal(np.asarray(shown.decode()), sized(own(photo), SIZE, "fill").map)
    again = asking.generate("a person", **ASKED, controls=[Control("pose", image=shown.map)])
    np.testing.assert_array_equal(drawn.pixels, again.pixels)
    assert drawn.metadata["controls"][0]["preprocess"] == "people"
    assert drawn.metadata["warnings"] == []


def over_http(url: str, model: str, inputs: list[tuple[str, str, Any]], output: str) -> Any:
    """One answer; an input of type BYTES with bytes travels in binary."""
    entries, binary = [], b""
    for name, datatype, value in inputs:
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [1]}
        if isinstance(value, bytes):
            part = len(value).to_bytes(4, "little") + value
            entry["parameters"] = {"binary_data_size": len(part)}
            binary += part
        else:
            entry["data"] = [value]
        entries.append(entry)
    head = json.dumps({"inputs": entries, "outputs": [{"name": output}]}).encode()
    request = urllib.request.Request(
        f"http://{url}/v2/models/{model}/infer",
        data=head + binary,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["outputs"][0]["data"][0]


def test_both_models_answer_in_http(served: Server) -> None:
    photo, at = png(one_person()), served.http_url
    text = over_http(at, "annotate", [("photo", "BYTES", photo), ("detector", "BYTES", "pose")], "keypoints")
    expected = own(one_person())
    assert expected.people is not None
    assert json.loads(text) == pose_document(expected.people, width=512, height=512)
    control = json.dumps([{"type": "pose", "image": 0, "preprocess": "auto"}])
    asked = [("prompt", "BYTES", "a person"), ("steps", "INT32", 1), ("controls", "BYTES", control)]
    metadata = over_http(at, "sdxl", [*asked, ("images", "BYTES", photo)], "metadata")
    assert json.loads(metadata)["controls"][0]["preprocess"] == "people"


BLACK = PIL.Image.new("RGB", (16, 16))
PURPLE = PIL.Image.new("RGB", (16, 16), (1, 2, 3))
BAD: dict[str, tuple[dict[str, Any], list[PIL.Image.Image], str]] = {
    "colours of no palette": (
        {"type": "segmentation", "image": 0, "palette": "ade20k"},
        [PURPLE],
        r"controls\[0\]\.image: .*allowed: ",
    ),
    "unknown palette": (
        {"type": "segmentation", "image": 0, "palette": "kitti"},
        [BLACK],
        r"controls\[0\]\.palette: .*allowed: .*cityscapes",
    ),
    "two images": ({"type": "canny", "image": [0, 1]}, [BLACK, BLACK], r"controls\[0\]\.image: .*allowed: "),
    "an image and a pose": (
        {"type": "pose", "image": 0, "pose": "waving-01"},
        [BLACK],
        r"controls\[0\]: .*allowed: exactly one of image",
    ),
    "an image for nobody": (
        {"type": "canny", "image": 0},
        [BLACK, PURPLE],
        r"images\[1\]: no control refers",
    ),
    "weight NaN": ({"type": "canny", "image": 0, "weight": float("nan")}, [BLACK], r"controls.*allowed: "),
    "begin after end": (
        {"type": "canny", "image": 0, "begin": 0.8, "end": 0.2},
        [BLACK],
        r"controls\[0\]\.begin: 0\.8 is not before end 0\.2; allowed: ",
    ),
    "unknown pose": (
        {"type": "pose", "pose": "flying-99"},
        [],
        r"controls\[0\]\.pose: .*flying-99.*allowed: ",
    ),
    "nobody in the picture": (
        {"type": "pose", "image": 0, "preprocess": "auto"},
        [nobody],  # type: ignore[list-item]
        r"images\[0\]: no person was found; allowed: a picture that shows",
    ),
    "unknown detector": (
        {"type": "pose", "image": 0, "preprocess": "dwpose"},
        [BLACK],
        r"controls\[0\]\.preprocess: .*no detector 'dwpose'; allowed: none, canny, .*people, whole, wrong, p",
    ),
    "no detector of that type": (
        {"type": "segmentation", "image": 0, "preprocess": "auto"},
        [BLACK],
        r"controls\[0\]\.preprocess: .*no detector 'segmentation'; allowed: ",
    ),
    "a detector for a pose": (
        {"type": "pose", "pose": "waving-01", "preprocess": "auto"},
        [],
        r"controls\[0\]\.preprocess: 'auto' with a pose; allowed: none",
    ),
    "weights that are missing": (
        {"type": "depth", "image": 0, "preprocess": "auto"},
        [BLACK],
        r"detectors\.depth: .*midas\.onnx: no such file; put the file there",
    ),
    "weights that are damaged": (
        {"type": "depth", "image": 0, "preprocess": "damaged"},
        [BLACK],
        r"damaged\.onnx: does not load: .*it must be the ONNX file of a network of relative depth",
    ),
    "weights that are of another network": (
        {"type": "pose", "image": 0, "preprocess": "wrong"},
        [BLACK],
        r"movenet-lightning\.onnx: its input is \[1, 192, 192, 3\]; it must be the ONNX file of DWPose",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_control_is_named_and_the_next_request_works(asking: Client, name: str) -> None:
    entry, pictures, says = BAD[name]
    images = [png(one() if callable(one) else one) for one in pictures]
    with pytest.raises((InvalidRequest, ServerError), match=says) as refused:
        raw(asking, entry, images)
    assert isinstance(refused.value, ServerError) == name.startswith("weights that"), "whose fault it is"
    assert len(str(refused.value)) < 600
    assert raw(asking, {"type": "pose", "pose": "waving-01"}, [])


def raw(client: Client, entry: dict[str, Any], images: list[bytes]) -> Any:
    """The answer to controls that our own client would refuse to send."""
    tensors = {
        "prompt": array(b"a person"),
        "width": np.array([SIZE[0]], np.int32),
        "height": np.array([SIZE[1]], np.int32),
        "steps": np.array([1], np.int32),
        "controls": array(json.dumps([entry]).encode()),
    }
    if images:
        tensors["images"] = array(*images)
    return client._images(Request(model=SDXL, tensors=tensors))


def array(*values: bytes) -> Any:
    found = np.empty(len(values), np.object_)
    found[:] = values
    return found


def test_a_photograph_of_nobody_is_named_by_annotate(asking: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"^photo: no person was found; allowed: a picture that shows"):
        asking.annotate(nobody(), "pose")
    with pytest.raises(InvalidRequest, match=r"^detector: .*no detector 'hed'"):
        asking.annotate(nobody(), "hed")
    with pytest.raises(ServerError, match=r"detectors\.depth: .*midas\.onnx: no such file"):
        asking.annotate(nobody(), "depth")
    assert asking.annotate(nobody(), "canny").keypoints is None


def fresh(seed: int) -> PIL.Image.Image:
    """A photograph that no cache knows."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    return PIL.Image.fromarray(pixels)


@pytest.mark.parametrize("through", ["annotate", "sdxl"])
def test_a_detector_that_crashes_or_hangs_fails_its_request_alone(
    served: Server, asking: Client, through: str
) -> None:
    def ask(seed: int) -> Any:
        if through == "annotate":
            return asking.annotate(fresh(seed), "pose")
        control = Control("pose", image=fresh(seed), preprocess="auto")
        return asking.generate("a person", **ASKED, controls=[control])

    def halted(seed: int) -> psutil.Process:
        """The process that answers `ask`, halted."""
        before = workers(served)
        for process in before:
            process.kill()
        _, unreaped = psutil.wait_procs(before, timeout=10)
        assert not unreaped
        with pytest.raises(InvalidRequest, match="no person was found"):
            ask(seed)
        (process,) = set(workers(served)) - set(before)
        process.suspend()
        return process

    base = 100 * len(through)
    with ThreadPoolExecutor(1) as threads:
        process = halted(base)
        asked = threads.submit(ask, base + 1)
        time.sleep(1)
        process.kill()
        with pytest.raises(ServerError, match="detector people: its process was killed by SIGKILL while it"):
            asked.result(30)
    process = halted(base + 2)
    began = time.monotonic()
    with pytest.raises(ServerError, match="its process did not answer in time and was ended; allowed: "):
        ask(base + 3)
    assert time.monotonic() - began < DEADLINE_SECONDS + 10
    assert not process.is_running()
    assert asking.annotate(one_person(), "pose").keypoints is not None
    assert asking.generate("a person", **ASKED, pose="waving-01").data


def test_the_process_ends_when_nobody_asks(served: Server, asking: Client) -> None:
    with pytest.raises(InvalidRequest, match="no person"):
        asking.annotate(fresh(1), "pose")
    running = workers(served)
    assert running
    _, alive = psutil.wait_procs(running, timeout=30)
    assert not alive
    with pytest.raises(InvalidRequest, match="no person"):
        asking.annotate(fresh(2), "pose")


def test_the_cache_is_that_of_the_command(asking: Client, deployment: Deployment) -> None:
    asking.annotate(one_person(), "pose")
    kept: Path = deployment.build / ".detections"
    assert asking.annotate(one_person(), "pose").cached
    assert list(kept.glob("*.json"))
