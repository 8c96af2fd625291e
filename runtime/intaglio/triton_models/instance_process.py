"""`python -m intaglio.triton_models.instance_process`: draws what the process of `diffuse` asks for.

Its standard input is a socket (`intaglio.triton_models.instance_messages`). It ends with status 0 when the
other end is closed, and with that of a failed card after it has said so. What libraries print goes to the
standard error, which is Triton's log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection

from intaglio.errors import DeviceFailed, IntaglioError, failed_device
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.instance_messages import (
    DEVICE_FAILED_STATUS,
    Advance,
    Advanced,
    Answer,
    Finish,
    Finished,
    LoraState,
    Open,
    ResidentControls,
    State,
)

__all__ = ["main"]


def main() -> None:
    """Answer until nobody asks."""
    # As Triton's own Python processes: what stops a whole group (Ctrl-C, systemd) must not lose the pictures
    # that the server still finishes. The other end of the socket says when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    connection = Connection(os.dup(0))
    os.dup2(2, 1)  # a library that prints must not write into anything else
    with connection:
        try:
            opening: Open = connection.recv()
            _serve(connection, opening)
        except (EOFError, ConnectionError):
            return


def _serve(connection: Connection, opening: Open) -> None:
    settings = replace(TelemetrySettings.of_environment(), traces=None)  # the other process has the spans
    telemetry = Telemetry(settings, stage="diffuse", instance=f"diffuse_instance_{opening.number}")
    with contextlib.ExitStack() as stack:
        try:
            stage = stack.enter_context(Diffuse(opening.manifest, opening.folder, hashes=opening.hashes))
            stage.warm_up()
        except Exception as error:
            connection.send(Answer(State(), error=_shown(error, telemetry)))
            return
        answers = _Answers(stage, telemetry)
        connection.send(Answer(answers.state))
        while True:
            answer = answers(connection.recv())
            connection.send(answer)
            if isinstance(answer.error, DeviceFailed):
                connection.close()
                # Nothing may run on the way out: closing engines would wait for the card.
                os._exit(DEVICE_FAILED_STATUS)


class _Answers:
    """The pictures of this instance."""

    def __init__(self, stage: Diffuse, telemetry: Telemetry) -> None:
        self._stage = stage
        self._telemetry = telemetry
        self._drawings: dict[int, Drawing] = {}

    def __call__(self, message: Advance | Finish) -> Answer:
        try:
            result = self._advanced(message) if isinstance(message, Advance) else self._finished(message)
        except Exception as error:
            return Answer(self.state, error=_shown(error, self._telemetry))
        return Answer(self.state, result)

    def _advanced(self, message: Advance) -> Advanced:
        self._drawings = {number: one for number, one in self._drawings.items() if number in message.kept}
        if message.drawing is not None:
            self._drawings[message.number] = message.drawing
        drawing = self._drawings[message.number]
        self._stage.advance(drawing)
        return Advanced(drawing.step, drawing.state, drawing.seconds)

    def _finished(self, message: Finish) -> Finished:
        drawing = self._drawings.pop(message.number)
        outputs = self._stage.finish(drawing, message.wanted)
        return Finished(outputs, drawing.seconds)

    @property
    def state(self) -> State:
        """What is resident now."""
        switch, controlnets = self._stage.loras, self._stage.controlnets
        loras = None if switch is None else LoraState(switch.resident, switch.digest, switch.counts)
        return State(loras, ResidentControls(controlnets.resident, controlnets.counts))


def _shown(error: Exception, telemetry: Telemetry) -> IntaglioError:
    """`error`, which is being handled, for the other process. What nobody foresaw goes to the log."""
    if (lost := failed_device(error)) is not None:
        return lost
    if isinstance(error, IntaglioError):
        return error
    telemetry.failure()
    return IntaglioError(
        f"diffuse: internal error ({type(error).__name__}); the server's log has the traceback"
    )


if __name__ == "__main__":
    main()
