"""Real faces: those of one person are near each other, those of different people are not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from intaglio.errors import ConfigError
from intaglio.faces.alignment import aligned
from intaglio.faces.found import FaceReader
from intaglio.faces.opening import open_reader, reader_key
from intaglio.faces.recognition import Recognition, open_finder

from ...photographs import nobody, one_person, portraits
from .scrfd_graphs import write_embedder
from .settings import FACES, identity

__all__ = ["portraits"]

FULL = Path(__file__).parents[4] / "shared/models/dlib-face-resnet-112.onnx"


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> FaceReader:
    return open_reader(identity(tmp_path_factory.mktemp("characters")))


def separation(read: FaceReader, portraits: dict[str, Image.Image]) -> tuple[list[float], list[float]]:
    """Distances of pairs of one person, and of different people."""
    faces = []
    for name, photo in {**portraits, "astronaut": one_person()}.items():
        (face,) = read(photo)
        faces.append((name[:5], face.embedding))
    same, different = [], []
    for (who, one), (other, two) in itertools.combinations(faces, 2):
        (same if who == other else different).append(float(np.linalg.norm(one - two)))
    return same, different


def test_pairs_of_real_faces_separate(read: FaceReader, portraits: dict[str, Image.Image]) -> None:
    """10 pairs of one man, 11 of different people. dlib itself separates them as completely."""
    same, different = separation(read, portraits)
    assert (len(same), len(different)) == (10, 11)
    print(sorted(same), sorted(different)[:6])
    assert max(same) < 0.34
    assert min(different) > 0.5


def test_a_network_that_wants_faces_as_arcface_separates_them_too(
    tmp_path: Path, portraits: dict[str, Image.Image]
) -> None:
    """Its crop and its range of pixels are ArcFace's: the settings of a deployment reach the network."""
    if not FULL.is_file():
        pytest.skip(f"needs {FULL.name} of ../shared/models")
    as_arcface = {"template": "arcface", "mean": 127.5, "std": 127.5}
    same, different = separation(open_reader(identity(tmp_path, recognition=FULL, **as_arcface)), portraits)
    assert max(same) < min(different)
    wrong = separation(open_reader(identity(tmp_path, recognition=FULL, template="arcface")), portraits)
    assert max(wrong[0]) > min(wrong[1]), "pixels of 0 to 255 are another picture to it"


def test_an_embedding_is_that_of_the_network_run_by_hand(read: FaceReader, tmp_path: Path) -> None:
    photo = one_person()
    (face,) = read(photo)
    (found,) = open_finder(FACES / "blazeface.onnx", identity(tmp_path))(photo)
    pixels = aligned(photo, found.points, template="dlib", side=150).astype(np.float32)
    session = onnxruntime.InferenceSession(
        FACES / "dlib-face-resnet.onnx", providers=["CPUExecutionProvider"]
    )
    (by_hand,) = session.run(None, {"face": pixels.transpose(2, 0, 1)[None]})
    np.testing.assert_allclose(face.embedding, by_hand[0] / np.linalg.norm(by_hand[0]), atol=1e-5)
    assert np.linalg.norm(face.embedding) == pytest.approx(1)
    assert not read(nobody())
    assert "array" not in repr(face).replace("box=array", ""), "no text shows an embedding"


def test_the_key_follows_the_networks_and_how_they_are_used(tmp_path: Path) -> None:
    plain = identity(tmp_path)
    other = write_embedder(tmp_path / "other.onnx")
    changed = [
        identity(tmp_path, template="arcface"),
        identity(tmp_path, mean=127.5),
        identity(tmp_path, std=2),
        identity(tmp_path, recognition=other),
        identity(tmp_path, detector=other),
    ]
    assert len({reader_key(one) for one in [plain, *changed]}) == 6
    same = identity(tmp_path / "elsewhere", threshold=0.2, smallest_face=9, reference="mean")
    assert reader_key(same) == reader_key(plain)
    with pytest.raises(ConfigError, match=r"none\.onnx: No such file or directory; put the ONNX file there"):
        reader_key(identity(tmp_path, recognition=tmp_path / "none.onnx"))


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"blazeface\.onnx: its input is .*; it must be .* embeds faces"):
        Recognition(FACES / "blazeface.onnx", identity(tmp_path))
    black = Recognition(write_embedder(tmp_path / "a.onnx"), identity(tmp_path))
    with pytest.raises(ConfigError, match=r"a\.onnx: its output is nothing but zeros"):
        black(Image.new("RGB", (50, 50)), np.array([[1.0, 1], [9, 1], [5, 5], [5, 9]]))


def test_a_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(
        ConfigError, match="device card: this ONNX Runtime has no CUDA; install onnxruntime-gpu"
    ):
        open_reader(identity(tmp_path, device="card"))
