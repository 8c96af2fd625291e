"""What the end of a call means in asyncio."""

from __future__ import annotations

import asyncio

from intaglio.errors import Cancelled

__all__ = ["cancellation"]


def cancellation(error: asyncio.CancelledError, *, says: str) -> BaseException:
    """What to raise in place of `error`, which awaiting a call of gRPC raised.

    gRPC raises it for a cancelled call, too. That is not the end of the task that waits, so it becomes a
    `Cancelled` that `says` why. Where the task itself is cancelled, `error` must go on.
    """
    task = asyncio.current_task()
    return error if task is not None and task.cancelling() else Cancelled(says)
