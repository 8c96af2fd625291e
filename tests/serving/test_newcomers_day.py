"""A newcomer's day: what README and docs/loras.md promise, typed in a copy of the repository, from the first
demo to the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from numpy.typing import NDArray

from intaglio.contract.config import Deployment
from intaglio.imaging.images import read_metadata
from intaglio_client import Client
from intaglio_client.demo import POSE, PROMPT, SEED

from .conftest import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("nothing_left")]
CONFIG = "configs/miniature.yaml"
DEMO = "make --old-file .venv/.installed-demo demo"
"""`make demo` where everything is installed."""
WATCH = f"intaglio watch {CONFIG} --lora dusk=trained/dusk --interval 0.2"
STYLED = "a person waving on a beach, in dusk style"
SIZE = (256, 192)
DRAWN = 3
"""Seed of the picture that is drawn again with every version of the LoRA."""


@dataclass
class Newcomer:
    """Somebody with a terminal in a copy of the repository."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "COLUMNS": "300"})

    def starts(self, command: str) -> subprocess.Popen[str]:
        """A process of `command`; stdout and stderr are one pipe."""
        words = shlex.split(command)
        if words[0] == "intaglio":
            words[:1] = [sys.executable, "-m", "intaglio"]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def types(self, command: str, *, code: int = 0) -> str:
        """What `command` prints, with single spaces; it must end with `code`."""
        with self.starts(command) as process:
            said, _ = process.communicate(timeout=200)
        assert process.returncode == code, f"{command}\n{said}"
        assert "Traceback" not in said
        return " ".join(said.split())

    @contextlib.contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """`command` until Ctrl-C, which ends it with 0."""
        with self.starts(command) as process:
            try:
                yield process
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0
            finally:
                process.kill()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """`intaglio serve` on free ports; the commands find it."""
        command = f"intaglio serve {CONFIG} --http-port 0 --grpc-port 0 --metrics-port 0 --json --quiet"
        with self.running(command) as process:
            assert process.stdout is not None
            self.environment["INTAGLIO_URL"] = json.loads(process.stdout.readline())["grpc"]
            yield

    def draws(self, name: str) -> bytes:
        """The file of one of the ten pictures, drawn with the newcomer's LoRA."""
        width, height = SIZE
        asked = f"--seed {DRAWN} --width {width} --height {height} --lora dusk"
        self.types(f"intaglio generate '{STYLED}' {asked} --out {name}")
        return (self.folder / name).read_bytes()

    def versions(self) -> Any:
        """Which version of the newcomer's LoRA is served, which are kept and which were rejected."""
        return json.loads(self.types("intaglio loras list --json"))["loras"]["dusk"]["served"]

    def pixels(self, name: str) -> NDArray[np.uint8]:
        return np.asarray(PIL.Image.open(self.folder / name))


@pytest.fixture
def newcomer(miniature: Deployment, tmp_path: Path) -> Newcomer:
    """In a copy that shares the stages of the session's build: nothing is exported again.

    Two steps are the default, so that the demo takes no longer than it must.
    """
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("poses"))
    (tmp_path / "configs/poses").symlink_to(REPOSITORY / "configs/poses")
    (tmp_path / "miniature").symlink_to(REPOSITORY / "miniature")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    config = tmp_path / CONFIG
    config.write_text(config.read_text().replace("steps: 20", "steps: 2"))
    share_stages(miniature, tmp_path)
    return Newcomer(tmp_path)


def share_stages(miniature: Deployment, folder: Path) -> None:
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(miniature.build / ".stages")


def see_the_demo(newcomer: Newcomer) -> bytes:
    """It draws what it says, and says where the time went."""
    said = newcomer.types(DEMO)
    assert f"{PROMPT!r}, pose {POSE}, LoRA mara, seed {SEED} → out/demo.png" in said
    assert re.search(r"build [\d.]+ s start Triton [\d.]+ s generate [\d.]+ s", said)
    drawn = (newcomer.folder / "out/demo.png").read_bytes()
    metadata = read_metadata(drawn)
    assert metadata is not None
    assert metadata["controls"][0]["pose"] == POSE
    assert [lora["id"] for lora in metadata["loras"]] == ["mara"]
    assert (metadata["seed"], metadata["steps"]) == (SEED, 2)
    assert newcomer.pixels("out/demo.png").shape == (256, 256, 3)
    return drawn


def draw_ten_pictures(newcomer: Newcomer) -> None:
    """In Python, as README does; each file says its seed, and can be drawn again from that."""
    folder = newcomer.folder / "pictures"
    with Client(newcomer.environment["INTAGLIO_URL"]) as client:
        for seed in range(10):
            image = client.generate(STYLED, seed=seed, width=SIZE[0], height=SIZE[1])
            image.save(folder / f"{seed}.png")
    files = [(folder / f"{seed}.png").read_bytes() for seed in range(10)]
    found = [read_metadata(file) or {} for file in files]
    assert [values["seed"] for values in found] == list(range(10))
    assert {(values["width"], values["height"]) for values in found} == {SIZE}
    assert len({newcomer.pixels(f"pictures/{seed}.png").tobytes() for seed in range(10)}) == 10
    newcomer.types(f"intaglio generate --like pictures/{DRAWN}.png --out same.png")
    assert (newcomer.folder / "same.png").read_bytes() == files[DRAWN]


def train_a_lora(newcomer: Newcomer) -> None:
    """On the ten pictures, with a caption beside each."""
    for picture in (newcomer.folder / "pictures").glob("*.png"):
        picture.with_suffix(".txt").write_text(STYLED)
    training = yaml.safe_load((newcomer.folder / "configs/training/night.yaml").read_text())
    training |= {
        "name": "dusk",
        "data": {"folder": "../../pictures"},
        "output": "../../trained/dusk",
        "resolution": 128,
        "steps": 2,
        "batch_size": 1,
        "warmup_steps": 0,
        "trigger_words": ["in dusk style"],
        "device": "cpu",
        "samples": None,
    }
    (newcomer.folder / "configs/training/dusk.yaml").write_text(yaml.safe_dump(training))
    assert "trained/dusk/dusk.safetensors" in newcomer.types("intaglio train lora configs/training/dusk.yaml")


def add_it(newcomer: Newcomer) -> bytes:
    """The command that `add` names serves it; the running server applies it. Returns its picture."""
    said = newcomer.types("intaglio loras add trained/dusk/dusk.safetensors --kind style")
    assert newcomer.versions() is None
    newcomer.types(hint_in(said, "intaglio build"))
    drawn = newcomer.draws("first.png")
    assert (newcomer.pixels(f"pictures/{DRAWN}.png") != newcomer.pixels("first.png")).any()
    metadata = read_metadata(drawn)
    assert metadata is not None
    assert metadata["model"]["loras"] == {"dusk": newcomer.versions()["version"]}
    return drawn


def retrain_and_watch(newcomer: Newcomer) -> bytes:
    """A watch serves the new file, and shows both. Returns the picture with the new one."""
    first = newcomer.versions()["version"]
    with newcomer.running(WATCH) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("unchanged dusk: trained/dusk/dusk.safetensors")
        said = newcomer.types("intaglio train lora configs/training/dusk.yaml --steps 4")
        assert "resuming at step 2 of 4" in said
        assert "served dusk" in " ".join(watching.stdout.readline().split())
    second = newcomer.versions()
    assert second["version"] != first
    assert (second["kept"], second["rejected"]) == ([first], [])
    (sheet,) = (newcomer.folder / "out/watch").glob("dusk-*.png")
    before, after = np.split(np.asarray(PIL.Image.open(sheet)), 2, axis=1)
    assert (before != after).any()
    drawn = newcomer.draws("second.png")
    assert (newcomer.pixels("first.png") != newcomer.pixels("second.png")).any()
    return drawn


def roll_it_back(newcomer: Newcomer, first: bytes, second: bytes) -> None:
    """The version before is served bit for bit; the command that `rollback` names undoes it."""
    said = newcomer.types(f"intaglio rollback {CONFIG} dusk")
    assert newcomer.draws("back.png") == first
    newcomer.types(hint_in(said, "intaglio loras serve"))
    assert newcomer.draws("undone.png") == second
    newcomer.types(f"intaglio rollback {CONFIG} dusk")
    assert "no version before" in newcomer.types(f"intaglio rollback {CONFIG} dusk", code=1)


def build_again(newcomer: Newcomer, first: bytes) -> None:
    """What was rejected stays rejected, for a build and for another watch."""
    rejected = newcomer.versions()["rejected"]
    said = newcomer.types(f"intaglio build {CONFIG}")
    assert f"because {rejected[0][:12]} was rejected" in said
    assert "was rejected by a rollback" in newcomer.types(f"{WATCH} --once", code=1)
    assert newcomer.versions()["rejected"] == rejected
    assert newcomer.draws("built.png") == first


def clean(newcomer: Newcomer) -> None:
    """Builds and outputs go; what was trained, the environment and the newcomer's own files stay."""
    newcomer.types("make clean")
    left = {path.name for path in newcomer.folder.iterdir()}
    assert not left & {"build", "out"}
    assert left >= {".venv", "Makefile", "configs", "miniature", "pictures", "trained"}
    assert (newcomer.folder / "trained/dusk/dusk.safetensors").is_file()


def hint_in(said: str, command: str) -> str:
    """The command that begins so in `said`, to its configuration."""
    found = re.search(rf"{command}\b.*? configs/[\w./-]+\.yaml", said)
    assert found is not None, said
    return found[0]


def test_a_newcomers_day(newcomer: Newcomer, miniature: Deployment) -> None:
    demonstrated = see_the_demo(newcomer)
    with newcomer.serving():
        draw_ten_pictures(newcomer)
        train_a_lora(newcomer)
        first = add_it(newcomer)
        second = retrain_and_watch(newcomer)
        roll_it_back(newcomer, first, second)
        build_again(newcomer, first)
    clean(newcomer)
    share_stages(miniature, newcomer.folder)
    # Nothing says any more that the file was rejected, so the newcomer is asked whether it is meant.
    said = newcomer.types(DEMO, code=2)
    assert "run intaglio loras add dusk again if that was meant" in said
    newcomer.types("intaglio loras add dusk")
    assert see_the_demo(newcomer) == demonstrated
