"""One run: judge each picture in the order of the items as soon as it is drawn, and keep it."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ConfigError
from intaglio_client.asking import Settings
from intaglio_client.batch.combining import Item, Items
from intaglio_client.batch.folder import BatchFolder
from intaglio_client.batch.limits import Quota
from intaglio_client.batch.manifest import Record
from intaglio_client.batch.schedule import Drawn, Schedule
from intaglio_client.batch.servers import DrawingServer, check_any_left, drawing
from intaglio_client.batch.spec import BatchSpec
from intaglio_client.errors import ServerError
from intaglio_client.filters.chain import judgement_of, recall
from intaglio_client.filters.verdict import Candidate, Filter
from intaglio_client.image import Image, model_differences

__all__ = ["Asked", "Batch", "Outcome", "Watcher", "run_batch"]

_WATCH_SECONDS: Final = 0.2
"""How often the run looks whether it shall stop while it waits for a picture."""
_AHEAD: Final = 4
"""Pictures for each that is being drawn that may wait for an earlier one: a slow server does not hold up a
fast one, and memory stays bounded.
"""


class Watcher(Protocol):
    """Who is told how the run goes."""

    def advanced(self, *, tried: int, accepted: int, left: int, fresh: bool) -> None:
        """A picture was judged. `left` is how many probably follow; `fresh`: it was drawn in this run."""

    def waiting(self, problems: Sequence[str]) -> None:
        """Every server is lost, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who draws."""

    urls: tuple[str, ...]
    settings: Settings
    in_flight: int
    """Pictures of each server at a time."""
    patience: float
    """Seconds without any server after which the run ends."""


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    tried: int = 0
    """Pictures that were judged, with those of earlier runs."""
    accepted: int = 0
    seconds: float = 0.0
    """Of this run."""
    short_of: tuple[str, ...] = ()
    """Groups that did not get as many accepted pictures as the limits say; the batch itself is ``."""
    is_complete: bool = False
    """Whether nothing is left to draw."""
    servers: Counter[str] = field(default_factory=Counter)
    """Pictures that each server drew in this run."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected pictures by the filter that rejected them."""


@dataclass(frozen=True)
class Batch:
    """What is drawn, how it is judged, and where it is kept."""

    spec: BatchSpec
    items: Items
    folder: BatchFolder
    records: Sequence[Record]
    """Of earlier runs."""
    filters: Sequence[Filter]


def run_batch(batch: Batch, asked: Asked, watcher: Watcher, *, stopped: Callable[[], bool]) -> Outcome:
    """Draw, judge and keep what is missing. Returns early where `stopped` says so.

    Raises:
        Unavailable: no server could be reached for `asked.patience` seconds.
        ConfigError: the folder cannot be written, or the servers draw something else than before.
        InvalidRequest, ServerError, DeadlineExceeded: what the servers say of a picture.
        All of them leave what was kept, and the same run goes on from there.
    """
    return _Run(batch, asked, watcher, stopped).run()


class _Run:
    """One run, while it runs."""

    def __init__(self, batch: Batch, asked: Asked, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self._batch = batch
        self._asked = asked
        self._watcher = watcher
        self._stopped = stopped
        self._quota = Quota(batch.spec.limits, batch.items)
        self._outcome = Outcome(servers=Counter(dict.fromkeys(asked.urls, 0)))
        self._models = _Models()
        self._recorded = {int(record["index"]): record for record in batch.records}
        self._lost = [index for index, record in self._recorded.items() if not batch.folder.is_whole(record)]

    def run(self) -> Outcome:
        began = time.monotonic()
        for record in self._batch.records:
            self._recall(record)
        if next(self._to_draw(), None) is not None:
            self._draw()
        else:
            self._outcome.is_complete = True
        self._outcome.short_of = tuple(self._quota.short_of) if self._outcome.is_complete else ()
        self._outcome.seconds = time.monotonic() - began
        return self._outcome

    def _recall(self, record: Record) -> None:
        """Take in what an earlier run judged."""
        self._quota.count(record["index"], accepted=record["accepted"])
        recall(self._batch.filters, _name_of(record["file"]), record)
        if self._batch.spec.same_build:
            self._models.take(record["parameters"])
        self._count(record)

    def _to_draw(self) -> Iterator[int]:
        """Indices that are not judged yet, or whose picture was lost; limits aside."""
        first = max(self._recorded, default=-1) + 1
        return itertools.chain(self._lost, range(first, len(self._batch.items)))

    def _is_wanted(self, index: int) -> bool:
        """Whether a server has to draw the item `index`, as far as can be told without reading a picture."""
        if index not in self._recorded and self._quota.is_full(index):
            return False
        folder = self._batch.folder
        return not folder.has_spares or not folder.has_spare(self._batch.items[index])

    def _draw(self) -> None:
        asked = self._asked
        servers = [DrawingServer(url, asked.settings) for url in asked.urls]
        ahead = asked.in_flight * len(servers) * (1 + _AHEAD)
        schedule = Schedule(self._to_draw(), wanted=self._is_wanted, ahead=ahead)
        with drawing(servers, schedule, self._batch.items, slots=asked.in_flight):
            self._outcome.is_complete = self._judge_all(schedule, servers)

    def _judge_all(self, schedule: Schedule, servers: Sequence[DrawingServer]) -> bool:
        """Judge in the order of the items; whether nothing was left."""
        for index in self._to_draw():
            schedule.move_to(index)
            record = self._recorded.get(index)
            if record is None and self._quota.is_full(index):
                continue
            if self._stopped():
                return False
            item = self._batch.items[index]
            spare = self._batch.folder.spare(item)
            drawn = self._wait(index, schedule, servers) if spare is None else _drawn_before(*spare)
            if drawn is None:
                return False
            if spare is None:
                self._outcome.servers[drawn.server] += 1
            if record is not None:
                self._batch.folder.restore(record, drawn.image.data)
                continue
            self._keep(item, drawn)
            self._watcher.advanced(
                tried=self._quota.tried,
                accepted=self._quota.accepted,
                left=self._quota.left(index + 1),
                fresh=spare is None,
            )
        return True

    def _wait(self, index: int, schedule: Schedule, servers: Sequence[DrawingServer]) -> Drawn | None:
        """The picture as soon as it is drawn; None where the run shall stop."""
        schedule.demand(index)  # it had a spare at its turn, which is damaged, or which another picture took
        while not self._stopped():
            drawn = schedule.wait_for(index, seconds=_WATCH_SECONDS)
            if drawn is not None:
                return drawn
            if all(server.lost_since is not None for server in servers):
                self._watcher.waiting([server.problem for server in servers])
                check_any_left(servers, patience=self._asked.patience)
        return None

    def _keep(self, item: Item, drawn: Drawn) -> None:
        """Judge a picture and keep it with its verdict."""
        image = drawn.image
        if self._batch.spec.same_build:
            self._models.check(image.metadata, server=drawn.server)
        pixels = _pixels_of(image, item, drawn.server)
        name = _name_of(str(self._batch.folder.file_of(item, accepted=True)))
        judged = judgement_of(self._batch.filters, Candidate(pixels, name, image.metadata))
        file = self._batch.folder.file_of(item, accepted=judged.accepted)
        record = {
            "index": item.index,
            "file": file.as_posix(),
            "sha256": hashlib.sha256(image.data).hexdigest(),
            "bytes": len(image.data),
            **judged.jsonable(),
            "inputs": dict(item.inputs),
            "item": item.digest,
            "parameters": dict(image.metadata),
            "timings": dict(image.timings),
            "server": drawn.server,
            "drawn": drawn.at,
        }
        self._batch.folder.write(record, image.data, pixels)
        self._batch.folder.drop_spare(item)
        self._quota.count(item.index, accepted=judged.accepted)
        self._count(record)

    def _count(self, record: Mapping[str, Any]) -> None:
        self._outcome.tried += 1
        if record["accepted"]:
            self._outcome.accepted += 1
        else:
            self._outcome.rejected[str(record["reason"]).partition(":")[0]] += 1


class _Models:
    """The build and the versions of LoRAs that drew the pictures so far."""

    def __init__(self) -> None:
        self._model: dict[str, Any] = {}

    def take(self, metadata: Mapping[str, Any]) -> None:
        """Note what drew a picture."""
        model = dict(metadata.get("model") or {})
        loras = {**self._model.get("loras", {}), **(model.get("loras") or {})}
        self._model = {**model, "loras": loras}

    def check(self, metadata: Mapping[str, Any], *, server: str) -> None:
        """Raise ConfigError where something else drew this picture than the earlier ones."""
        if self._model:
            known = {"model": self._model}
            for difference in model_differences(known, metadata, same_loras=False):
                raise ConfigError(
                    f"{server}: {difference}; allowed: servers of one build, or same_build: false in the "
                    "specification"
                )
        self.take(metadata)


def _name_of(file: str) -> str:
    """What filters call a picture: its file without folder and suffix, which do not depend on the verdict."""
    return file.rpartition("/")[2].rpartition(".")[0]


def _pixels_of(image: Image, item: Item, server: str) -> NDArray[np.uint8]:
    try:
        return image.pixels
    except (OSError, SyntaxError, ValueError) as error:
        raise ServerError(f"{server}: picture {item.index} cannot be read as an image: {error}") from error


def _drawn_before(record: Record, data: bytes) -> Drawn:
    image = Image(data, record["parameters"], record["timings"])
    return Drawn(image, record["server"], record["drawn"])
