"""A wheel is enough: what it holds, and a day with it outside the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import pytest
import yaml

from .conftest import ROOT, uv

pytestmark = pytest.mark.fresh

EXTRAS = "client,serve,triton,export"
LARGEST_WHEEL = 4 * 1024 * 1024
WEIGHTS = (".safetensors", ".onnx", ".bin", ".pt", ".ckpt", ".npz")


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_it_holds_code_examples_poses_and_tokenizers_and_nothing_else(wheel: Path) -> None:
    names = names_in(wheel)
    packages = {"intaglio", "intaglio_client", "intaglio_export", "intaglio_train"}
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert not [name for name in names if name.endswith(WEIGHTS) or "/tests/" in name]
    assert wheel.stat().st_size <= LARGEST_WHEEL
    held = {name.removeprefix("intaglio/data/") for name in names if name.startswith("intaglio/data/")}
    committed = subprocess.run(
        ["git", "ls-files", "configs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(committed.stdout.split()) <= held
    for tokenizer in ("tokenizer", "tokenizer_2"):
        assert {f"tokenizers/{tokenizer}/{name}" for name in ("vocab.json", "merges.txt")} <= held


def test_it_holds_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licences = [name for name in names if ".dist-info/licenses/" in name]
        texts = [archive.read(name).decode() for name in licences]
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        head = archive.read(metadata).decode()
    assert any("Apache License" in text for text in texts)
    assert any("MIT License" in text and "OpenAI" in text for text in texts)
    assert "License-Expression: Apache-2.0 AND MIT" in head
    assert "intaglio/data/tokenizers/tokenizer/LICENSE" in names


def test_a_clean_clone_and_its_source_distribution_build_it(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), tmp_path / "clone"], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", "./clone"]
    subprocess.run(pip, cwd=tmp_path, check=True)
    uv("build", "--quiet", "--sdist", "--out-dir", tmp_path, tmp_path / "clone")
    (sources,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        held = [name.partition("/")[2] for name in archive.getnames()]
    assert not [name for name in held if name.endswith(WEIGHTS) or name.startswith("tests/")]
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "again", sources)
    (of_clone,) = (tmp_path / "wheels").glob("*.whl")
    (of_sources,) = (tmp_path / "again").glob("*.whl")
    assert names_in(of_sources) == names_in(of_clone)


class Studio:
    """A folder outside the repository, and the command of an environment that has the wheel only."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        self._command = str(python.parent / "intaglio")
        self._variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._command, *arguments],
            cwd=self.folder,
            env=self._variables | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, f"intaglio {' '.join(arguments)}\n{said}"
        return said

    @contextmanager
    def served(self, *arguments: str) -> Iterator[str]:
        """`intaglio serve` on free ports; gives the address of its gRPC, and ends it by Ctrl-C."""
        ports = [word for kind in ("http", "grpc", "metrics") for word in (f"--{kind}-port", "0")]
        server = self.start("serve", *arguments, *ports)
        assert server.stdout is not None
        said = ""
        try:
            while (address := re.search(r"grpc +(\S+)\n", said)) is None:
                line = server.stdout.readline()
                assert line, f"intaglio serve ended\n{said}"
                said += line
            yield address[1]
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=60)
            assert server.returncode == 0, said + rest
            assert rest.rstrip().endswith("stopped")
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def studio(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("away"), environment(EXTRAS))


@pytest.mark.timeout(300)
def test_a_picture_comes_from_an_empty_folder(studio: Studio) -> None:
    """init, the miniature beside it, doctor, build, loras, serve, generate, stop."""
    assert "intaglio build miniature.yaml" in studio.run("init", "plates", "--like", "miniature")
    plates = Studio(studio.folder / "plates", studio.python)
    shutil.copytree(ROOT / "miniature", plates.folder / "miniature")
    config = plates.folder / "miniature.yaml"
    values = yaml.safe_load(config.read_text())
    values["controlnets"] = {"pose": values["controlnets"]["pose"]}  # the others take as long each
    values["profiles"] |= {"sizes": [[256, 256]], "guidance": ["on"]}
    config.write_text(yaml.safe_dump(values))
    assert "nothing is missing: intaglio build miniature.yaml" in plates.run("doctor", "miniature.yaml")
    plates.run("build", "miniature.yaml")
    assert (plates.folder / "build/miniature/manifest.json").is_file()
    assert "in moonlight style" in plates.run("loras", "list", "--config", "miniature.yaml")
    with plates.served("miniature.yaml") as url:
        asked = ("a person waving on a beach", "--pose", "waving-01", "--lora", "night:0.8", "--steps", "4")
        plates.run("generate", *asked, "--url", url, "--out", "picture.png")
    with PIL.Image.open(plates.folder / "picture.png") as picture:
        assert picture.size == (256, 256)
        (made,) = (json.loads(text) for text in picture.info.values() if str(text).startswith("{"))
    assert made["controls"][0]["pose"] == "waving-01"


@pytest.mark.timeout(400)
def test_the_demo_runs_on_the_weights_of_a_repository(studio: Studio) -> None:
    (studio.folder / "demonstrated").mkdir()
    demonstrated = Studio(studio.folder / "demonstrated", studio.python)
    assert "out/demo.png" in demonstrated.run("demo", "--miniature", str(ROOT / "miniature"))
    with PIL.Image.open(demonstrated.folder / "out/demo.png") as picture:
        assert picture.size == (256, 256)


@pytest.mark.timeout(200)
def test_a_seeded_base_needs_no_repository(studio: Studio) -> None:
    """Its architecture is in the code, its tokenizers are in the wheel."""
    studio.run("init", "seeded", "--like", "sdxl-seeded")
    config = studio.folder / "seeded/sdxl-seeded.yaml"
    values = yaml.safe_load(config.read_text())
    values["base"]["architecture"] = "sdxl-reduced"  # the same blocks, few and narrow
    del values["controlnets"]
    values |= {"precision": "auto", "profiles": {"sizes": [[64, 64]], "guidance": ["on"], "text_chunks": 1}}
    config.write_text(yaml.safe_dump(values))
    studio.run("build", str(config))
    assert (studio.folder / "seeded/build/sdxl-seeded/manifest.json").is_file()
    assert list((studio.folder / "seeded/build/sdxl-seeded").glob("tokenizers/*/tokenizer_2/vocab.json"))
