"""The Triton model `diffuse`, whose engines are open from `initialize` to `finalize`.

`execute` only queues requests, and one thread draws them, a slice at a time. So a short request need not wait
for a long one, and requests that want the same LoRAs and ControlNets follow one another without a swap.
(Triton hands over one request at a time to a model without batching. It does not wait for an answer before
the next.) Triton's own figures of the model then say nothing; `request_metrics` has others.

Where the deployment asks for several instances, each is a process of its own (`instances`), and a thread for
each takes slices from the same queue (`crew`).
"""

# ruff: noqa: PLC0415  (the process of a model imports its own stage only)

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import DIFFUSE
from intaglio.contract.ports import Tensors, string_tensor
from intaglio.errors import Cancelled, DeviceFailed, IntaglioError, QueueFull, failed_device
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.incoming import wanted_of
from intaglio.triton_models.certificate_metric import certificate_expiry
from intaglio.triton_models.crew import Crew, Seat
from intaglio.triton_models.drawer import Drawer, DrawingStage
from intaglio.triton_models.drawing_report import Reported, drawing_report, reported_seats
from intaglio.triton_models.instance_messages import DEVICE_FAILED_STATUS
from intaglio.triton_models.instances import InstanceLost, Instances
from intaglio.triton_models.jobs import Job, JobRequest, Pace, job_entry, read_job_request
from intaglio.triton_models.metrics import When, conditions_of
from intaglio.triton_models.model import TritonModel, queue_size, tensors_of
from intaglio.triton_models.places import hang_seconds_of, instance_gpu, places_of
from intaglio.triton_models.queue_watch import QueueWatch
from intaglio.triton_models.replies import Answer, Reply, Single, Watched
from intaglio.triton_models.reporter import Report, Reporter
from intaglio.triton_models.request_metrics import RequestCounts, outcome_of
from intaglio.triton_models.served_build import model_parameters
from intaglio.triton_models.turnstile import Entry, Turnstile
from intaglio.triton_models.watched_jobs import WatchedJobs

if TYPE_CHECKING:
    from intaglio.stages.diffuse.incoming import Wanted

__all__ = ["DEVICE_FAILED_STATUS", "DiffuseModel"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 30.0
"""After this time without a question, the caller of a watched picture is taken to be gone. `sdxl_stream` asks
again as soon as it has an answer.
"""


class DiffuseModel(TritonModel):
    """`diffuse`."""

    spec = DIFFUSE
    _instances: Instances | None = None
    """None where this process draws."""
    _crew: Crew | None = None
    """Has the instances draw."""
    _conditions: frozenset[When] = frozenset({When.ALWAYS})
    """Those that hold for this server."""

    def initialize(self, args: Mapping[str, str]) -> None:
        self._gpu = instance_gpu(args)
        self._parameters = model_parameters(args)
        super().initialize(args)
        self._folder = Path(args["model_repository"])
        self._version = args.get("model_version", "1")
        self._make_queue(capacity=queue_size(args))
        self._reporter = Reporter(self._open_metrics, failed=self._log_traceback)
        if self._crew is not None:
            self._crew.start()
        else:
            self._thread = threading.Thread(target=self._serve, name="diffuse", daemon=True)
            self._thread.start()
        self._watch.start()
        self._reporter.start()

    def open_build(self, manifest: BuildManifest, folder: Path) -> None:
        from intaglio.stages.diffuse.stage import Diffuse

        self._execution = manifest.execution
        places = places_of(self._parameters)
        tls = certificate_expiry() is not None
        self._conditions = conditions_of(manifest, instances=bool(places), tls=tls)
        if places:
            hang = hang_seconds_of(self._parameters)
            self._instances = self._opened.enter_context(
                Instances(manifest, folder, places, hang_seconds=hang)
            )
            self._read = self._instances.read
            return
        if self._gpu is not None:
            execution = manifest.execution.model_copy(update={"gpu": self._gpu})
            manifest = manifest.model_copy(update={"execution": execution})
        self._diffuse = self._opened.enter_context(Diffuse(manifest, folder))
        self._read = self._diffuse.read
        self._diffuse.warm_up()

    def _make_queue(self, *, capacity: int) -> None:
        """Make the queue and what is counted of it."""
        self._turnstile: Turnstile[Job, Wanted] = Turnstile(
            overtakes=self._execution.overtakes, capacity=capacity
        )
        self._counts = RequestCounts()
        self._pace = Pace()
        self._watched = WatchedJobs()
        self._watch = QueueWatch(
            self._turnstile, self._watched, end=self._end_early, failed=self._log_traceback
        )
        self._lost: DeviceFailed | None = None
        """Why the card can compute nothing more."""
        if self._instances is None:
            self._drawer = self._make_drawer(self._diffuse, self._counts)
            self._drawing = [Reported(self._diffuse, self._counts)]
            return
        seats = []
        for instance in self._instances.each:
            work = RequestCounts()
            seats.append(Seat(instance, self._make_drawer(instance, work), work))
        self._drawing = reported_seats(seats)
        self._crew = Crew(
            seats,
            self._turnstile,
            draw=self._serve_slice,
            end=self._end_lost,
            give_up=lambda why: self._end_process(DeviceFailed(why)),
        )

    def _make_drawer(self, stage: DrawingStage, work: RequestCounts) -> Drawer:
        return Drawer(stage, self._turnstile, counts=self._counts, work=work, pace=self._pace)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Queue `requests`; their responses follow. One that must be refused is refused immediately."""
        for request in requests:
            answer = partial(self._send, request.get_response_sender())
            try:
                self._take_up(request, answer)
            except Exception as error:
                self._journal(request).ended(error)
                answer(self._refused(error, request.request_id()))
        return [None] * len(requests)

    def finalize(self) -> None:
        self._turnstile.close()
        if self._crew is not None:
            self._crew.close()
        else:
            self._thread.join()
        self._watch.close()
        self._reporter.close()
        super().finalize()

    # --- requests ---

    def _take_up(self, request: Any, answer: Answer) -> None:
        tensors = tensors_of(request)
        asked = read_job_request(tensors)
        if not asked.brings_picture:
            self._tell(asked, answer)
        elif asked.job is None:
            self._queue(request, tensors, asked, Single(answer, request.is_cancelled))
        else:
            self._queue_watched(request, tensors, asked, answer)

    def _queue_watched(self, request: Any, tensors: Tensors, asked: JobRequest, answer: Answer) -> None:
        latents = "latents" in request.requested_output_names()
        reply = Watched(self._response, wants_latents=latents, patience=_PATIENCE_SECONDS)
        # This request is answered before the picture is drawn, and then Triton reuses its memory.
        kept = {name: np.array(value) for name, value in tensors.items()}
        job = asked.job or ""
        self._watched.add(job, reply)
        try:
            self._watched.set_entry(job, self._queue(request, kept, asked, reply))
        except Exception:
            self._watched.discard(job)
            raise
        reply.ask(answer)

    def _queue(self, request: Any, tensors: Tensors, asked: JobRequest, reply: Reply) -> Entry[Job, Wanted]:
        """Queue a picture, of which its caller hears through `reply`."""
        conditioning = self._read(tensors)
        names = set(request.requested_output_names())
        job = Job(
            drawing=Drawing(conditioning, slice_steps=asked.slice_steps or self._execution.slice_steps),
            reply=reply,
            wanted=[port.name for port in self.spec.outputs if port.name in names],
            request_id=request.request_id(),
            journal=self._journal(request),
            deadline=math.inf if asked.deadline is None else time.monotonic() + asked.deadline,
            queue_timeout=asked.queue_timeout,
        )
        entry = job_entry(job, asked, wish=wanted_of(conditioning))
        job.tell_arrival()
        if not self._turnstile.put(entry):
            raise self._lost or self._full()
        if self._turnstile.running():
            self._show_places()
        return entry

    def _show_places(self) -> None:
        """Tell callers their places. Where one cannot be told, the request that has just come goes on: it is
        queued, and a refusal would be its first of two answers.
        """
        try:
            self._watch.show_places()
        except Exception:
            self._log_traceback()

    def _full(self) -> QueueFull:
        self._counts.refused()
        return self._pace.queue_full()

    def _tell(self, asked: JobRequest, answer: Answer) -> None:
        """Answer a caller that watches a picture, or stop the picture."""
        entry, reply = self._watched.find(asked.job or "")
        if asked.stop:
            self._watch.stop(entry)
            answer(self._response({"event": string_tensor(json.dumps({"kind": "stopping"}))}))
        else:
            reply.ask(answer)

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
        return drawing_report(
            self._pb,
            self._turnstile,
            self._counts,
            self._drawing,
            self._telemetry,
            conditions=self._conditions,
        )

    # --- the thread that draws ---

    def _serve(self) -> None:
        """Draw, in the one thread that uses the engines; no error may end it."""
        try:
            self._diffuse.use_in_this_thread()
        except IntaglioError as error:
            self._end_process(DeviceFailed(str(error)))
            return
        while (entry := self._turnstile.take(self._diffuse.needs_swap)) is not None:
            self._serve_slice(entry, self._drawer)
            if self._lost is not None:
                self._end_process(self._lost)

    def _serve_slice(self, entry: Entry[Job, Wanted], drawer: Drawer) -> None:
        """Draw a slice. Raises InstanceLost where another instance has to go on with the picture."""
        try:
            outputs = drawer.draw(entry)
            if outputs is not None:
                self._end(entry, self._response(outputs), None)
        except InstanceLost:
            raise
        except Exception as error:
            self._end(entry, self._refused(error, entry.job.request_id), error)

    def _end(self, entry: Entry[Job, Wanted], response: Any, error: Exception | None) -> None:
        self._turnstile.remove(entry)
        outcome = "finished" if error is None else outcome_of(error)
        self._counts.ended(outcome, steps_left=entry.job.steps_left)
        entry.job.tell_end(error)
        # Before the answer goes out: whoever has it reads metrics that include it.
        self._reporter.report()
        entry.job.reply.end(response)

    def _end_early(self, entry: Entry[Job, Wanted]) -> None:
        """End a request that waited and was taken out of the queue."""
        self._counts.waited(time.monotonic() - entry.since)
        job = entry.job
        error = Cancelled("cancelled by the caller") if job.stopped else job.late()
        self._end(entry, self._failure(str(error), error, job.request_id), error)

    def _end_lost(self, entry: Entry[Job, Wanted], error: Exception) -> None:
        """End a picture with which too many instances were lost."""
        self._end(entry, self._failure(str(error), error, entry.job.request_id), error)

    def _refused(self, error: Exception, request_id: str) -> Any:
        lost = failed_device(error)
        if lost is not None:
            self._lost = lost
        return super()._refused(lost or error, request_id)

    def _end_process(self, lost: DeviceFailed) -> None:
        """Refuse all that wait and end the process, whose every later request would fail.

        `intaglio serve` notices and restarts Triton.
        """
        waiting = self._turnstile.drain()
        for job in waiting:
            job.reply.end(self._failure(str(lost), lost, job.request_id))
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
