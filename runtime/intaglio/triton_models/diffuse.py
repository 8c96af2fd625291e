"""The Triton model `diffuse`, whose engines are open from `initialize` to `finalize`.

`execute` only queues requests, and one thread answers them. So requests that want the same LoRAs and
ControlNets can be answered one after another without a swap. (Triton hands over one request at a time to a
model without batching. It does not wait for an answer before the next.) Triton's own figures of the model
then say nothing; `request_metrics` has others.
"""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import DIFFUSE
from intaglio.errors import DeviceFailed, IntaglioError, QueueFull, failed_device
from intaglio.triton_models.controlnet_metrics import ControlNetMetrics
from intaglio.triton_models.lora_metrics import LoraMetrics
from intaglio.triton_models.reporter import Report, Reporter
from intaglio.triton_models.request_metrics import RequestCounts, RequestMetrics
from intaglio.triton_models.stages import Stage, StageModel, tensors_of
from intaglio.triton_models.turnstile import Turnstile, Waiting

if TYPE_CHECKING:
    from intaglio.stages.diffuse.stage import Wanted

__all__ = ["DEVICE_FAILED_STATUS", "DiffuseModel"]

log = logging.getLogger(__name__)

DEVICE_FAILED_STATUS: Final = 74
"""Exit status of the process after the card failed: EX_IOERR of sysexits.h."""

Job = tuple[Any, Any]
"""A request and the sender of its response."""


class DiffuseModel(StageModel):
    """`diffuse`."""

    spec = DIFFUSE

    def initialize(self, args: Mapping[str, str]) -> None:
        self._gpu = _instance_gpu(args)
        super().initialize(args)
        self._folder = Path(args["model_repository"])
        self._version = args.get("model_version", "1")
        self._turnstile: Turnstile[Job, Wanted] = Turnstile(
            overtakes=self._overtakes, capacity=_queue_size(json.loads(args["model_config"]))
        )
        self._counts = RequestCounts()
        self._reporter = Reporter(self._open_metrics, failed=self._log_traceback)
        self._lost: DeviceFailed | None = None
        """Why the card can compute nothing more."""
        self._thread = threading.Thread(target=self._serve, name="diffuse", daemon=True)
        self._thread.start()
        self._reporter.start()

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.diffuse.stage import Diffuse

        if self._gpu is not None:
            execution = manifest.execution.model_copy(update={"gpu": self._gpu})
            manifest = manifest.model_copy(update={"execution": execution})
        self._overtakes = manifest.execution.swap_overtakes
        self._diffuse = self._opened.enter_context(Diffuse(manifest, folder))
        self._diffuse.warm_up()
        # `_take_up` has let the request in.
        return lambda tensors, wanted: self._diffuse.answer(tensors, wanted=wanted)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Queue `requests`; their responses follow. One that must be refused is refused immediately."""
        for request in requests:
            self._take_up(request, request.get_response_sender())
        return [None] * len(requests)

    def _take_up(self, request: Any, sender: Any) -> None:
        try:
            wanted = self._diffuse.wanted(self._diffuse.read(tensors_of(request)))
        except Exception as error:
            self._send(sender, self._refused(error, request))
            return
        if not self._turnstile.put((request, sender), wanted):
            why = self._lost or QueueFull("Exceeds maximum queue size")
            self._send(sender, self._failure(str(why), why))

    def finalize(self) -> None:
        self._turnstile.close()
        self._thread.join()
        self._reporter.close()
        super().finalize()

    # --- metrics ---

    def _open_metrics(self) -> Report | None:
        """The report of all metrics; None while another version of the model is loaded or about to be.

        Versions share Triton's metrics of one name, and the first version to be unloaded destroys them.
        Another version that writes to them writes into freed memory. So a version makes its metrics only once
        it is alone. What it counted until then is added at that moment.
        """
        others = (path.name for path in self._folder.glob("*") if path.name != self._version)
        if any(name.isdigit() for name in others):
            return None
        requests = RequestMetrics(self._pb)
        switch = self._diffuse.loras
        loras = None if switch is None else LoraMetrics(self._pb)
        controlnets = ControlNetMetrics(self._pb)

        def report() -> None:
            depth, oldest_wait = self._turnstile.waiting()
            requests.report(self._counts.now, depth=depth, oldest_wait=oldest_wait)
            if loras is not None and switch is not None:
                loras.report(switch)
            controlnets.report(self._diffuse.controlnets)

        return report

    # --- the thread that answers ---

    def _serve(self) -> None:
        """Answer requests, in the one thread that uses the engines; no error may end it."""
        try:
            self._diffuse.use_in_this_thread()
        except IntaglioError as error:
            self._end_process(DeviceFailed(str(error)))
            return
        while (taken := self._turnstile.take(self._diffuse.needs_swap)) is not None:
            self._serve_one(taken)
            if self._lost is not None:
                self._end_process(self._lost)

    def _serve_one(self, taken: Waiting[Job, Wanted]) -> None:
        request, sender = taken.job
        self._counts.begin(time.monotonic() - taken.since)
        response = self._respond(request)
        self._counts.end()
        # Before the answer goes out: whoever has it reads metrics that include it.
        self._reporter.report()
        self._send(sender, response)

    def _refused(self, error: Exception, request: Any) -> Any:
        lost = failed_device(error)
        if lost is not None:
            self._lost = lost
        return super()._refused(lost or error, request)

    def _end_process(self, lost: DeviceFailed) -> None:
        """Refuse all that wait and end the process, whose every later request would fail.

        `intaglio serve` notices and restarts Triton.
        """
        waiting = self._turnstile.drain()
        for _, sender in waiting:
            self._send(sender, self._failure(str(lost), lost))
        # Triton's own logger only queues the line, and the process would end before it is written. The
        # supervisor looks for lines that begin with "error:".
        log.critical(
            "error: %s: %s; %d waiting requests were refused; this process ends with status %d",
            self.spec.name,
            lost,
            len(waiting),
            DEVICE_FAILED_STATUS,
        )
        # Nothing may run on the way out: closing engines would wait for the card.
        os._exit(DEVICE_FAILED_STATUS)

    def _send(self, sender: Any, response: Any) -> None:
        try:
            sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # the backend's own error class; the caller is gone, the next one waits
            self._log_traceback()


def _instance_gpu(args: Mapping[str, str]) -> int | None:
    """The card that Triton gives this instance, as its instance group says; None for one on the CPU."""
    if args.get("model_instance_kind") != "GPU":
        return None
    return int(args["model_instance_device_id"])


def _queue_size(config: Mapping[str, Any]) -> int:
    """Most requests that may wait, as config.pbtxt says; 0 is any number."""
    policy = config.get("dynamic_batching", {}).get("default_queue_policy", {})
    return int(policy.get("max_queue_size", 0))
