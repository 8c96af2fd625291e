"""Other processes that tests look at, which may end at any moment."""

from __future__ import annotations

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it has ended, or waits to be reaped."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # psutil.ZombieProcess is one
        return []


def commands_below(pid: int) -> dict[psutil.Process, list[str]]:
    """The command lines of the processes that `pid` started, and they in turn; those that live."""
    children = psutil.Process(pid).children(recursive=True)
    commands = {child: command_of(child) for child in children}
    return {child: command for child, command in commands.items() if command}
