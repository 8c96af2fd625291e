"""`intaglio COMMAND`: every command is an entry point of the group `intaglio.commands`.

A command's module is imported only when the command runs, or when a shell completes its options. Help lists
all commands without importing any. An entry is a typer app. An IntaglioError, and an OSError of a file that
cannot be read or written, becomes one line on stderr and an exit code of `intaglio.exit_codes`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from intaglio import __version__
from intaglio.errors import IntaglioError
from intaglio.exit_codes import exit_code_of
from intaglio.extras import Extras, missing_module

__all__ = ["COMMANDS", "GROUP", "main"]

GROUP: Final = "intaglio.commands"
COMMANDS: Final[Mapping[str, str]] = {
    "init": "Write a deployment and what belongs to it, to start from.",
    "build": "Compile a deployment: weights to ONNX, engines, repository.",
    "serve": "Run Triton on a build until Ctrl-C.",
    "reload": "Switch a running server to a new build, without a restart.",
    "generate": "Ask a server for images.",
    "batch": "Draw many pictures, keep what filters accept, and resume.",
    "doctor": "Say what this machine has, what is missing, what fixes it.",
    "demo": "Build, serve, generate and stop once; time each step.",
    "video": "Make an MP4 or a GIF of pictures.",
    "tune": "Find the cheapest settings that draw the same picture.",
    "bench": "Measure a server under load; compare measurements.",
    "loras": "The registry of LoRAs: add, remove, list, show, check, serve.",
    "presets": "Quality presets, styles, negatives and scenes: list, show.",
    "watch": "Follow checkpoints folders and serve each new LoRA.",
    "rollback": "Serve the previous version of a LoRA.",
    "control": "Turn photographs into control maps.",
    "poses": "The pose library: list, search, show, add, check.",
    "characters": "Faces of characters: enroll, list, show, check, forget.",
    "annotate": "Label what is in pictures: YOLO files, boxes, rules.",
    "data": "Data to train on: captions, tables, curating.",
    "train": "Train a LoRA or a ControlNet.",
}
"""One line of help for each command, in the order of the list."""


class _CommandGroup(TyperGroup):
    """Knows the commands by name and imports the one that is asked for."""

    entries: Mapping[str, EntryPoint]
    running = ""
    """The command that was asked for."""

    def offer(self, entries: Mapping[str, EntryPoint]) -> None:
        """Offer the commands of `entries`. What help and suggestions need of them stands in `COMMANDS`."""
        self.entries = entries
        known = [name for name in COMMANDS if name in entries]
        for name in [*known, *sorted(set(entries) - set(known))]:
            self.add_command(TyperCommand(name, help=COMMANDS.get(name, entries[name].value)), name)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of `COMMANDS`; older releases of typer sort them by name."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that `args` begin with."""
        name, found, rest = super().resolve_command(ctx, args)
        if name is None or found is None:
            return name, found, rest
        self.running = name
        try:
            return name, self._imported(name), rest
        except ImportError:
            if ctx.resilient_parsing:  # a shell completes: nothing is offered for what is not installed
                return None, None, []
            raise

    def _imported(self, name: str) -> Any:
        command: Any = get_command(self.entries[name].load())
        for one in (command, *getattr(command, "commands", {}).values()):
            one.rich_markup_mode = self.rich_markup_mode
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run a command. What it explains becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            explained = missing_module(error, Extras.installed())
            if explained is None:
                raise  # a module of our own that is not there is a defect
            self._end(str(explained), explained)
        except IntaglioError as error:
            self._end(str(error), error)
        except OSError as error:
            if error.filename is None:
                raise  # not about a file that the user named
            self._end(f"{error.filename}: {error.strerror}", error)
        except KeyboardInterrupt as error:
            self._end("interrupted", error)

    def _end(self, problem: str, error: BaseException) -> None:
        typer.echo(f"intaglio {self.running}: {problem}", err=True)
        raise typer.Exit(exit_code_of(error)) from error


_app = typer.Typer(
    name="intaglio",
    cls=_CommandGroup,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"intaglio {__version__}")
        raise typer.Exit


@_app.callback()
def intaglio(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """SDXL with trained LoRAs, compiled to TensorRT engines and served by NVIDIA Triton.

    `intaglio COMMAND --help` lists the options of a command.
    """


def main(arguments: Sequence[str] | None = None, *, commands: Mapping[str, EntryPoint] | None = None) -> int:
    """Run one command; returns the exit code. `commands` replaces the installed ones (tests)."""
    if commands is None:
        commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    group: Any = get_command(_app)
    if not sys.stdout.isatty():
        group.rich_markup_mode = None  # frames and colours are for people
    group.offer(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        group.main(args=given or ["--help"], prog_name="intaglio")
    except SystemExit as leaving:  # how typer ends a program
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0
