"""`intaglio NAME ...`: every subcommand is an entry point of the group `intaglio.commands`.

A subcommand's module is imported only when it runs. An entry is a typer app, or a callable that takes the
arguments and returns an exit code. An IntaglioError, and an OSError of a file that cannot be read or written,
becomes one line on stderr and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from intaglio import __version__
from intaglio.errors import IntaglioError, MissingExtra

__all__ = ["GROUP", "main"]

GROUP: Final = "intaglio.commands"
_HELP: Final[Mapping[str, str]] = {
    "init": "write a deployment, a LoRA registry and a training configuration",
    "build": "weights -> fused -> ONNX -> engines -> model repository",
    "serve": "run Triton on a build until Ctrl-C",
    "reload": "switch a running server to a new build, without a restart",
    "generate": "ask a server for images",
    "doctor": "what this machine has, what is missing, what fixes it",
    "demo": "build, serve, generate, stop; where the time went",
    "loras": "the registry of LoRAs: add, remove, list, show, check, serve",
    "watch": "follow checkpoints folders and serve each new LoRA",
    "rollback": "serve the previous version of a LoRA",
    "train": "train a LoRA or a ControlNet",
}
_EXTRAS: Final[Mapping[str, str]] = {
    "intaglio": "serve",
    "intaglio_client": "client",
    "intaglio_export": "export",
    "intaglio_train": "train",
}
"""Which extra the package of a command needs."""
_FAILURE: Final = 2


def main(arguments: Sequence[str] | None = None, *, commands: Mapping[str, EntryPoint] | None = None) -> int:
    """Run one subcommand; returns the exit code. `commands` replaces the installed ones (tests)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    found = {entry.name: entry for entry in entry_points(group=GROUP)} if commands is None else commands
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help(found)
        return 0
    if arguments[0] == "--version":
        Console(highlight=False).print(f"intaglio {__version__}")
        return 0
    name, *rest = arguments
    if name not in found:
        known = ", ".join(sorted(found)) or "none installed"
        errors.print(f"intaglio: no command {escape(repr(name))}; commands: {known}")
        return _FAILURE
    try:
        return _run(found[name], rest)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] in _EXTRAS:
            raise  # a module of our own is not a missing extra
        errors.print(f"intaglio {name}: {escape(str(MissingExtra(missing, extra=_extra_of(found[name]))))}")
    except IntaglioError as error:
        errors.print(f"intaglio {name}: {escape(str(error))}")
    except OSError as error:
        if error.filename is None:
            raise  # not about a file that the user named
        errors.print(f"intaglio {name}: {escape(f'{error.filename}: {error.strerror}')}")
    return _FAILURE


def _run(entry: EntryPoint, arguments: Sequence[str]) -> int:
    command: Any = entry.load()
    run: Callable[..., Any] = command
    if hasattr(command, "registered_commands"):  # a typer app
        from typer.main import get_command  # noqa: PLC0415  (typer is slow to import; help does not need it)

        run = get_command(command)
        try:
            result = run(args=list(arguments), prog_name=f"intaglio {entry.name}")
        except SystemExit as leaving:  # how click ends a program
            result = leaving.code
    else:
        result = run(list(arguments))
    return result if isinstance(result, int) else 0


def _extra_of(entry: EntryPoint) -> str:
    return _EXTRAS.get(entry.module.partition(".")[0], "dev")


def _print_help(commands: Mapping[str, EntryPoint]) -> None:
    console = Console(highlight=False)
    console.print("usage: intaglio COMMAND ...      intaglio COMMAND --help      intaglio --version")
    table = Table(box=None, show_header=False, padding=(0, 2))
    known = [name for name in _HELP if name in commands]
    for name in [*known, *sorted(set(commands) - set(known))]:
        table.add_row(name, _HELP.get(name, commands[name].value))
    console.print(table)
