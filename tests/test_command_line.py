"""What all commands have in common."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from intaglio.cli import COMMANDS, GROUP

ENTRIES = {entry.name: entry for entry in entry_points(group=GROUP)}
PAGE = Path(__file__).parents[1] / "docs/commands.md"


def commands_in(name: str, found: Any) -> dict[str, Any]:
    """Everything that a user can run under `name`: the command itself, or those of a group."""
    inner = getattr(found, "commands", None)
    if inner is None:
        return {name: found}
    return {f"{name} {one}": command for one, command in inner.items()}


def all_commands() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entry in ENTRIES.items():
        found |= commands_in(name, get_command(entry.load()))
    return found


ALL = all_commands()


def options_of(command: Any) -> set[str]:
    return {option for one in command.params for option in one.opts}


def test_the_list_names_every_command() -> None:
    assert set(COMMANDS) == set(ENTRIES)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_only_the_group_installs_completion(name: str) -> None:
    """A command of its own would install a script for a program that does not exist."""
    assert "--install-completion" not in options_of(get_command(ENTRIES[name].load()))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_has_json_and_quiet(name: str) -> None:
    assert {"--json", "--quiet", "-q"} <= options_of(ALL[name])


def test_the_documentation_has_the_json_keys_of_every_command() -> None:
    rows = re.findall(r"^\| (`.*?) \| .*`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for row in rows for name in re.findall("`([a-z -]+)`", row)} >= set(ALL)


def test_help_of_every_command_needs_no_library() -> None:
    """Help must work before the extras are installed; torch takes seconds to import. Only `serve` and
    `generate` need their extra for it.
    """
    code = (
        "import sys\n"
        "from intaglio.cli import main\n"
        "names = ('bench', 'build', 'doctor', 'demo', 'train', 'video', 'data', 'tune', 'watch', 'batch')\n"
        "assert all(main([name, '-h']) == 0 for name in names)\n"
        "print(sorted({'torch', 'diffusers', 'tritonclient', 'onnx'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_command_with_an_url_takes_it_from_the_environment() -> None:
    urls = {name: one for name, command in ALL.items() for one in command.params if "--url" in one.opts}
    assert {name: url.envvar for name, url in urls.items()} == {
        "batch": "INTAGLIO_URL",
        "bench quality": "INTAGLIO_URL",
        "bench run": "INTAGLIO_URL",
        "generate": "INTAGLIO_URL",
        "tune": "INTAGLIO_URL",
        "watch": "INTAGLIO_URL",
    }
