"""The Triton model `diffuse`, whose engines are open from `initialize` to `finalize`.

Where requests choose their LoRAs, `execute` only queues requests, and one thread answers them. So requests
that want the same set can be answered one after another without a swap. (Triton hands over one request at a
time to a model without batching. It does not wait for an answer before the next.)
"""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import DIFFUSE
from intaglio.errors import QueueFull
from intaglio.loras.sets import set_digest, set_from_json
from intaglio.loras.switch import LoraSwitch
from intaglio.triton_models.lora_metrics import LoraMetrics
from intaglio.triton_models.stages import Stage, StageModel
from intaglio.triton_models.turnstile import Turnstile

__all__ = ["DiffuseModel"]


class DiffuseModel(StageModel):
    """`diffuse`."""

    spec = DIFFUSE

    def initialize(self, args: Mapping[str, str]) -> None:
        super().initialize(args)
        self._thread: threading.Thread | None = None
        self._folder = Path(args["model_repository"])
        self._version = args.get("model_version", "1")
        if self._diffuse.loras is not None:
            capacity = _queue_size(json.loads(args["model_config"]))
            self._turnstile: Turnstile[tuple[Any, Any]] = Turnstile(
                overtakes=self._overtakes, capacity=capacity
            )
            metrics = LoraMetrics(self._pb) if self._is_alone() else None
            self._thread = threading.Thread(
                target=self._serve, args=(self._diffuse.loras, metrics), name="diffuse", daemon=True
            )
            self._thread.start()

    def open_stage(self, manifest: BuildManifest, folder: Path) -> Stage:
        from intaglio.stages.diffuse.stage import Diffuse

        self._overtakes = manifest.execution.lora_overtakes
        self._diffuse = self._opened.enter_context(Diffuse(manifest, folder))
        self._diffuse.warm_up()
        return lambda tensors, wanted: self._diffuse(tensors, wanted=wanted)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        if self._thread is None:
            return super().execute(requests)
        for request in requests:
            sender = request.get_response_sender()
            if not self._turnstile.put((request, sender), _wanted_set(request)):
                full = QueueFull("Exceeds maximum queue size")
                self._send(sender, self._failure(str(full), full))
        return [None] * len(requests)

    def _is_alone(self) -> bool:
        """Whether no other version of the model is loaded or about to be.

        Versions share Triton's metrics of one name, and the first version to be unloaded destroys them.
        Another version that writes to them writes into freed memory. So a version makes its metrics only once
        it is alone. What it counted until then is added at that moment.
        """
        others = (path.name for path in self._folder.glob("*") if path.name != self._version)
        return not any(name.isdigit() for name in others)

    def _serve(self, loras: LoraSwitch, metrics: LoraMetrics | None) -> None:
        """Answer requests, in the one thread that uses the engines; no error may end it."""
        while (taken := self._turnstile.take(loras.digest)) is not None:
            waited = time.monotonic() - taken.since
            request, sender = taken.job
            response = self._respond(request)
            try:
                if metrics is None and self._is_alone():
                    metrics = LoraMetrics(self._pb)
                if metrics is not None:
                    # Before the answer goes out: whoever has it reads metrics that include it.
                    metrics.report(loras, waited=waited)
            except Exception:  # the backend's own error class
                self._log_traceback()
            self._send(sender, response)

    def _send(self, sender: Any, response: Any) -> None:
        try:
            sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # the backend's own error class; the caller is gone, the next one waits
            self._log_traceback()

    def finalize(self) -> None:
        if self._thread is not None:
            self._turnstile.close()
            self._thread.join()
        super().finalize()


def _queue_size(config: Mapping[str, Any]) -> int:
    """Most requests that may wait, as config.pbtxt says; 0 is any number."""
    policy = config.get("dynamic_batching", {}).get("default_queue_policy", {})
    return int(policy.get("max_queue_size", 0))


def _wanted_set(request: Any) -> str:
    """Digest of the LoRAs that a request wants. An unreadable set is "": the stage then refuses it."""
    for tensor in request.inputs():
        if tensor.name() == "loras":
            try:
                return set_digest(set_from_json(bytes(tensor.as_numpy()[0])))
            except (ValueError, IndexError):
                return ""
    return ""
