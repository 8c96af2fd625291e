"""What the READMEs name exists: files, commands, options."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from typer.testing import CliRunner

import intaglio
from intaglio import init
from intaglio.detectors import command as control
from intaglio.objects import command as annotate
from intaglio.poses import command as poses
from intaglio.serving import command as serve
from intaglio.serving import doctor
from intaglio_client import demo, watch_command
from intaglio_client.batch import command as batch
from intaglio_client.bench import command as bench
from intaglio_client.characters import command as characters
from intaglio_client.generate import command as generate
from intaglio_client.tune import command as tune
from intaglio_client.video import command as video
from intaglio_export.commands import build, loras, presets
from intaglio_train import command as train
from intaglio_train.datasets import command as data

from .pages import ROOT, blocks

APPS = {
    "init": init.app,
    "build": build.app,
    "serve": serve.app,
    "generate": generate.app,
    "batch": batch.app,
    "demo": demo.app,
    "doctor": doctor.app,
    "train": train.app,
    "video": video.app,
    "data": data.app,
    "tune": tune.app,
    "bench": bench.app,
    "reload": serve.reload_app,
    "loras": loras.app,
    "presets": presets.app,
    "watch": watch_command.watch_app,
    "control": control.app,
    "poses": poses.app,
    "characters": characters.app,
    "annotate": annotate.app,
    "rollback": watch_command.rollback_app,
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = "".join(text for language, text in blocks("README.md") if not language)
COMMANDS = re.findall(r"^intaglio ([^#\n]+)", FENCED, re.MULTILINE) + re.findall(
    r"`intaglio ([a-z][^`]*)`", README
)


@cache
def help_of(*words: str) -> str:
    """`intaglio WORDS --help`, wide enough that nothing is cut."""
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(APPS[words[0]], [*words[1:], "--help"])
    assert done.exit_code == 0, done.output
    return done.output


PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/README.md",
    "docker/schemas/README.md",
    "miniature/README.md",
    "docs/architecture.md",
    "docs/batches.md",
    "docs/characters.md",
    "docs/benchmarking.md",
    "docs/checkpoints.md",
    "docs/clients.md",
    "docs/commands.md",
    "docs/configuration.md",
    "docs/controls.md",
    "docs/datasets.md",
    "docs/labels.md",
    "docs/loras.md",
    "docs/observing.md",
    "docs/operating.md",
    "docs/performance.md",
    "docs/presets.md",
    "docs/schedules.md",
    "docs/shipping.md",
    "docs/tuning.md",
    "docs/upgrades.md",
    "docs/video.md",
    "benchmarks/README.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^):]+)\)", text)
    assert not [link for link in links if not leads_somewhere((ROOT / page).parent, link)]


def leads_somewhere(folder: Path, link: str) -> bool:
    """Whether the file of a link is there, and the heading that it names after a #."""
    name, _, anchor = link.partition("#")
    path = folder / name
    if not anchor or not path.is_file():
        return path.exists()
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_say_which_version_they_describe() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert (version, intaglio.__version__) == (installed("intaglio"), version)
    assert index.startswith(f"# Pages of intaglio {version}\n")
    assert f"describe version {version}," in index
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert released[:1] == [version] or f"This is {version}, which is not released yet." in changelog


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_commands_and_their_options_exist() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(APPS)
    for line in COMMANDS:
        for option in re.findall(r"--[a-z-]+", line):
            words = line.split()
            assert option in help_of(
                *words[: 2 if words[0] in ("characters", "data", "loras", "poses", "presets") else 1]
            ), line


def test_configurations_it_names_exist() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.yaml", README))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
