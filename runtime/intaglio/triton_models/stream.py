"""The Triton model `sdxl_stream`: the same stages as `sdxl`, with events while a picture waits and is drawn.

Each request has a thread, which calls the stages one after another. `diffuse` draws in slices on its own: the
thread only asks for the next events, so the device never waits for it. Another thread looks whether callers
are gone, and stops their pictures.

A version of this model calls the stages of its own version, so a picture is drawn by one build.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import DIFFUSE, POSTPROCESS, PREPROCESS, SDXL, SDXL_STREAM, ModelSpec
from intaglio.contract.ports import Tensors, read_tensors, scalar, string_tensor
from intaglio.engines.interface import Array
from intaglio.errors import Cancelled, DeadlineExceeded
from intaglio.imaging.latent_previews import preview_files
from intaglio.telemetry.journal import Journal
from intaglio.triton_models.jobs import Pace
from intaglio.triton_models.model import TritonModel, queue_size, tensors_of
from intaglio.triton_models.stage_calls import CalledOutputs, StageCalls, StageFailed
from intaglio.triton_models.stream_watch import StreamWatch, WatchedStream

__all__ = ["StreamModel"]

_SEEN = ("event", "pixels", "timings")


class StreamModel(TritonModel):
    """`sdxl_stream`."""

    spec = SDXL_STREAM

    def initialize(self, args: Mapping[str, str]) -> None:
        super().initialize(args)
        self._calls = StageCalls(self._pb, version=int(args.get("model_version", "1")))
        self._most = queue_size(args)
        self._pace = Pace()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._watch = StreamWatch(self._stop_job, failed=self._log_traceback)
        self._watch.start()

    def open_build(self, manifest: BuildManifest, folder: Path) -> None:
        """Nothing: the stages have the build."""

    def execute(self, requests: Sequence[Any]) -> None:
        """Start a thread for each of `requests`."""
        for request in requests:
            stream = WatchedStream(request.get_response_sender(), job=uuid.uuid4().hex)
            journal = self._journal(request)
            journal.tell("received")
            if self._most and len(self._threads) >= self._most:
                full = self._pace.queue_full()
                journal.ended(full)
                self._send_last(stream, self._failure(str(full), full))
                continue
            # Triton may reuse the memory of a request's tensors as soon as this returns.
            tensors = {name: value.copy() for name, value in tensors_of(request).items()}
            thread = threading.Thread(
                target=self._serve, args=(stream, tensors, journal), name="stream", daemon=True
            )
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def finalize(self) -> None:
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self._watch.close()
        super().finalize()

    # --- one request ---

    def _serve(self, stream: WatchedStream, tensors: Tensors, journal: Journal) -> None:
        try:
            with self._watch.watching(stream):
                last = self._last_response(stream, tensors, journal)
            self._send_last(stream, last)
        except Exception:  # the backend's own error class; the caller is gone
            self._log_traceback(journal.request_id)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _last_response(self, stream: WatchedStream, tensors: Tensors, journal: Journal) -> Any:
        """Send the events; the response that follows them, a picture or an error."""
        try:
            outputs = self._draw(stream, tensors, journal)
            journal.ended()
            event = {"event": string_tensor(json.dumps({"kind": "result"}))}
            return self._response({**event, **{port.name: outputs[port.name] for port in SDXL.outputs}})
        except StageFailed as error:
            journal.ended(error, status=error.code)
            return self._error_response(error.message, error.code)
        except Exception as error:
            journal.ended(error)
            return self._refused(error, journal.request_id)

    def _send_last(self, stream: WatchedStream, response: Any) -> None:
        final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        if stream.cancelled:
            stream.sender.send(flags=final)  # nobody reads a response
        else:
            stream.sender.send(response, flags=final)

    def _draw(self, stream: WatchedStream, tensors: Tensors, journal: Journal) -> Mapping[str, Array]:
        """The outputs of `postprocess`."""
        arrived = time.monotonic()
        found = read_tensors(tensors, SDXL_STREAM.inputs)
        own = {
            name: scalar(found, SDXL_STREAM.input(name)) for name in ("slice_steps", "preview", "deadline")
        }
        request = {name: value for name, value in found.items() if name not in own}
        prepared = self._calls.call(PREPROCESS, request, journal=journal)
        if stream.look():  # its picture would wait in a place that others need
            raise Cancelled("cancelled by the caller")
        asked = dict(_passed(prepared, DIFFUSE))
        asked["job"] = string_tensor(stream.job)
        if own["slice_steps"] is not None:
            asked["slice_steps"] = found["slice_steps"]
        if own["deadline"] is not None:
            asked["deadline"] = _left(own["deadline"], arrived)
        drawn = self._watched(stream, asked, preview=own["preview"] or 0, journal=journal)
        finishing = dict(_passed(prepared, POSTPROCESS)) | {
            name: drawn.tensor(name) for name in ("pixels", "timings")
        }
        outputs = self._calls.call(POSTPROCESS, finishing, journal=journal)
        return {port.name: outputs.array(port.name) for port in POSTPROCESS.outputs}

    def _watched(
        self, stream: WatchedStream, asked: Mapping[str, Any], *, preview: int, journal: Journal
    ) -> CalledOutputs:
        """Have `diffuse` draw, and send its events; its last answer, which has the pixels."""
        wanted = [*_SEEN, "latents"] if preview else list(_SEEN)
        answer = self._calls.call(DIFFUSE, asked, wanted=wanted, journal=journal)
        again = {"job": string_tensor(stream.job)}
        while "pixels" not in answer:
            try:
                self._send_events(stream, answer, preview=preview)
            except Exception:
                self._stop_job(stream)  # nobody asks for its next events
                raise
            answer = self._calls.call(DIFFUSE, again, wanted=wanted, journal=journal)
        return answer

    def _send_events(self, stream: WatchedStream, answer: CalledOutputs, *, preview: int) -> None:
        last: dict[str, Any] = {}
        for text in answer.array("event"):
            last = json.loads(text)
            if last["kind"] == "progress":
                stream.begun = True
                if last["step"] == last["steps"]:
                    self._pace.finished(last["seconds"])
            self._send(stream, {"event": string_tensor(text)})
        if preview and "latents" in answer:
            files = preview_files(answer.array("latents"), longest=preview)
            event = {"kind": "preview", "step": last["step"], "steps": last["steps"]}
            self._send(stream, {"event": string_tensor(json.dumps(event)), "preview": string_tensor(*files)})

    def _send(self, stream: WatchedStream, outputs: Mapping[str, Array]) -> None:
        if not stream.cancelled:
            stream.sender.send(self._response(outputs))

    def _stop_job(self, stream: WatchedStream) -> None:
        """Stop the picture of `stream`; it has none before `diffuse` knows it and after its end."""
        stop = {"job": string_tensor(stream.job), "stop": np.array([True])}
        with contextlib.suppress(StageFailed):
            self._calls.call(DIFFUSE, stop, wanted=["event"])


def _passed(outputs: CalledOutputs, stage: ModelSpec) -> Iterator[tuple[str, Any]]:
    """The tensors of `outputs` that are inputs of `stage`."""
    for port in stage.inputs:
        if port.name in outputs:
            yield port.name, outputs.tensor(port.name)


def _left(seconds: float, since: float) -> Array:
    """What is left of a deadline of `seconds` since the arrival at `since`."""
    left = seconds - (time.monotonic() - since)
    if left <= 0:
        raise DeadlineExceeded(f"its deadline of {seconds:g} s passed before it was queued")
    return np.array([left], np.float32)
