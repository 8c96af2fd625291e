"""How a server stops without losing a request: it admits no more, and finishes those that it has.

Once Triton is told to stop, none of its models accepts a request any more, not even the next stage of a
picture that is being drawn. So before that the models that clients call are loaded in a version that refuses.
Triton keeps the version before it until its last request has the answer.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from intaglio.errors import Unavailable
from intaglio.serving.process import TritonProcess
from intaglio.serving.versions import ServedRepository, ServedVersion

__all__ = ["Drain"]

_POLL_SECONDS: Final = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drain:
    """The end of a running Triton that serves `version`; versions up to `number` - 1 were loaded."""

    process: TritonProcess
    repository: ServedRepository
    version: ServedVersion
    number: int

    def run(self, *, until: float) -> bool:
        """Refuse further requests and wait for the others; False where some are not over at `until`, as
        `time.monotonic` has it.

        Raises:
            Unavailable: Triton does not answer, so there is nothing to wait for.
        """
        models = self.version.open_models
        try:
            for model in models:
                self._close(model, until=until)
        except Unavailable:
            if time.monotonic() < until:
                raise
            return False  # it may answer later, and nobody waits for that
        self.process.watch(self.number)
        administration = self.process.administration
        while administration.has_loaded_others(self.number, models):
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _close(self, model: str, *, until: float) -> None:
        """Admit no more requests to `model`. Where there is no room for the version that refuses, the model
        is unloaded: Triton then refuses in its own words, that the model is unknown.
        """
        administration = self.process.administration
        try:
            self.repository.refuse(model, self.version, number=self.number)
            administration.load_model(model, until=until)
        except Unavailable as error:
            _log.warning("%s is unloaded, since it cannot refuse: %s", model, error)
            administration.unload_model(model, until=until)
