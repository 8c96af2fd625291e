"""What all commands have in common."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest
from typer.main import get_command

from intaglio.cli import COMMANDS, GROUP

ENTRIES = {entry.name: entry for entry in entry_points(group=GROUP)}
REPORTING = [
    "build", "demo", "doctor", "loras add", "loras check", "loras list", "loras serve", "reload", "rollback",
    "serve", "train", "watch",
]  # fmt: skip


def command(name: str) -> Any:
    first, *rest = name.split()
    found: Any = get_command(ENTRIES[first].load())
    return found.commands[rest[0]] if rest else found


def test_the_list_names_every_command() -> None:
    assert set(COMMANDS) == set(ENTRIES)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_only_the_group_installs_completion(name: str) -> None:
    """A command of its own would install a script for a program that does not exist."""
    assert "--install-completion" not in {option for one in command(name).params for option in one.opts}


@pytest.mark.parametrize("name", REPORTING)
def test_a_command_that_reports_has_json_and_quiet(name: str) -> None:
    options = {option for one in command(name).params for option in one.opts}
    assert {"--json", "--quiet", "-q"} <= options


def test_help_of_every_command_needs_no_library() -> None:
    """Help must work before the extras are installed; torch takes seconds to import. Only `serve` and
    `generate` need their extra for it.
    """
    code = (
        "import sys\n"
        "from intaglio.cli import main\n"
        "assert all(main([name, '-h']) == 0 for name in ('build', 'doctor', 'demo', 'train', 'watch'))\n"
        "print(sorted({'torch', 'diffusers', 'tritonclient', 'onnx'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", ["watch"])
def test_a_command_with_an_url_takes_it_from_the_environment(name: str) -> None:
    (url,) = [one for one in command(name).params if "--url" in one.opts]
    assert url.envvar == "INTAGLIO_URL"
