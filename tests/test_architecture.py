"""docs/architecture.md is true: its files exist, and its picture has every room in the order that
lint-imports holds.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from .pages import ROOT, blocks

PAGE = "docs/architecture.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
PACKAGES = {
    "intaglio": "runtime/intaglio",
    "intaglio_export": "export/intaglio_export",
    "intaglio_client": "client/intaglio_client",
    "intaglio_train": "training/intaglio_train",
}
PICTURE = next(text for language, text in blocks(PAGE) if not language)
LONGEST_PAGE = 125
"""Lines: the page must stay one page."""


def files_named() -> list[str]:
    """Every path in backticks that has a folder and a suffix, such as `intaglio/cli.py`."""
    return sorted(set(re.findall(r"`([\w.]+(?:/[\w.]+)*/[\w]+\.[a-z]+)`", TEXT)))


def place_of(path: str) -> Path:
    """Where a path of the page lies: an import path of ours, or a path from the repository's root."""
    first, _, rest = path.partition("/")
    return ROOT / PACKAGES.get(first, first) / rest


def picture_of(package: str) -> list[str]:
    """The lines of the picture under the line of `package`, down to the next line without indentation."""
    lines = PICTURE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{package}/"))
    rooms = []
    for line in lines[start + 1 :]:
        if not line.startswith(" "):
            break
        rooms.append(line)
    return rooms


def names_in(line: str) -> list[str]:
    """Files and folders that a line of the picture begins with: `imaging/, sampling/   pictures` has two."""
    return re.findall(r"[\w.]+/?", re.split(r"\s{2,}", line.strip(), maxsplit=1)[0])


def rooms_of(package: str) -> set[str]:
    """Packages below the folder `package`, by the name of their own folder."""
    folder = ROOT / package
    return {path.parent.name for path in folder.rglob("__init__.py") if path.parent != folder}


@pytest.mark.parametrize("path", files_named())
def test_a_file_that_the_page_names_exists(path: str) -> None:
    assert place_of(path).is_file()


def test_the_page_names_files() -> None:
    assert {"intaglio/sampling/solvers.py", "tests/parity.py", "docs/clients.md"} <= set(files_named())
    assert place_of("intaglio/cli.py") == ROOT / "runtime/intaglio/cli.py"


@pytest.mark.parametrize("package", [*PACKAGES.values(), "benchmarks"])
def test_the_picture_has_every_room_and_no_other(package: str) -> None:
    shown = {name.removesuffix("/") for line in picture_of(package) for name in names_in(line) if "/" in name}
    assert shown == rooms_of(package)


@pytest.mark.parametrize("package", [*PACKAGES.values(), "benchmarks"])
def test_files_in_the_picture_exist(package: str) -> None:
    names = {name for line in picture_of(package) for name in names_in(line) if name.endswith(".py")}
    assert not [name for name in names if not (ROOT / package / name).is_file()]


def test_the_picture_has_the_order_that_lint_imports_holds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["intaglio"])
    floors = [set(re.findall(r"\w+", layer)) for layer in layers]
    top_level = [line for line in picture_of(PACKAGES["intaglio"]) if re.match(r"  \S", line)]
    drawn = [{re.sub(r"\.py$|/$", "", name) for name in names_in(line)} for line in top_level]
    assert drawn == [floor for floor in floors if floor != {"__main__"}]


def test_the_page_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= LONGEST_PAGE
