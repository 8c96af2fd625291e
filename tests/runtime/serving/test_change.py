"""What a failed change of versions takes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import Unavailable
from intaglio.serving import change as changing
from intaglio.serving.change import LoadFailed, UnloadFailed, VersionChange
from intaglio.serving.versions import ServedRepository, ServedVersion

from .conftest import contents


class Models:
    """Triton's part of a change: which versions it has loaded; the calls that fail."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.loaded: set[int] = set()
        self.failing: dict[int, str] = {}
        """By the number of the call."""

    def load_model(self, model: str) -> None:
        self.loads.append(model)
        if (reason := self.failing.get(len(self.loads))) is not None:
            raise Unavailable(reason)

    def has_loaded(self, version: int, models: Any) -> bool:
        return version in self.loaded

    def watch(self, version: int) -> None: ...

    @property
    def administration(self) -> Models:
        return self


def change(
    process: Models, repository: ServedRepository, old: ServedVersion, new: ServedVersion
) -> VersionChange:
    found: Any = process
    return VersionChange(found, repository, old, new, lambda _: None)


def test_a_full_disk_amid_a_reload(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second = versions(1), versions(2)
    repository.start_with(first)
    before = contents(repository.folder)
    full_disk()
    with pytest.raises(LoadFailed, match=r"the disk is full; version 1 .* still serves"):
        change(process, repository, first, second).run(pytest.fail)
    assert contents(repository.folder) == before
    assert process.loads == [*first.public, *first.stages]


def test_what_could_not_be_taken_back_is_not_loaded(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    """The ensemble's file still names the new version. Loaded, it would serve what nobody expects."""
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second = versions(1), versions(2)
    repository.start_with(first)
    stages = len(first.stages)
    process.failing = {stages + 1: "the ensemble does not load"}
    original = process.load_model

    def load_model(model: str) -> None:
        if len(process.loads) == stages:
            full_disk()
        original(model)

    process.load_model = load_model  # type: ignore[method-assign]
    with pytest.raises(LoadFailed, match="the ensemble does not load; version 1"):
        change(process, repository, first, second).run(pytest.fail)
    assert process.loads == [*second.stages, second.public[0]], "neither again"
    assert repository.numbers(first) == {1}


def test_a_version_that_never_ends_its_requests_does_not_keep_the_reload(
    tmp_path: Path, versions: Callable[[int], ServedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(changing, "_UNLOAD_SECONDS", 0.2)
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second = versions(1), versions(2)
    repository.start_with(first)
    process.loaded = {1, 2}
    switched: list[bool] = []
    with pytest.raises(
        UnloadFailed,
        match=r"version 1 .* has not ended its requests for 0\.2 s; version 2 .* serves, version 1 .*",
    ):
        change(process, repository, first, second).run(lambda: switched.append(True))
    assert switched == [True]
    assert repository.numbers(second) == {1, 2}


def test_a_server_that_stops_does_not_wait_for_the_old_version(
    tmp_path: Path, versions: Callable[[int], ServedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "_SETTLE_SECONDS", 0.0)
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second = versions(1), versions(2)
    repository.start_with(first)
    process.loaded = {1, 2}
    going = replace(change(process, repository, first, second), stopping=lambda: True)
    with pytest.raises(UnloadFailed, match=r"^the server is stopping; version 2 .* serves"):
        going.run(lambda: None)


def test_versions_that_did_not_go_at_their_time_go_later(
    tmp_path: Path, versions: Callable[[int], ServedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "_SETTLE_SECONDS", 0.0)
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second, third, fourth = map(versions, range(1, 5))
    repository.start_with(first)
    process.failing = {len(first.stages) + len(first.public) + 1: "cannot be unloaded"}
    with pytest.raises(
        UnloadFailed,
        match=r"cannot be unloaded; version 2 .* serves, version 1 .* is removed at the next start",
    ):
        change(process, repository, first, second).run(lambda: None)
    assert repository.numbers(second) == {1, 2}
    process.failing, process.loaded = {}, {1, 3}
    change(process, repository, second, third).run(lambda: None)
    assert repository.numbers(third) == {1, 3}, "version 1 still answers somebody"
    process.loaded = {4}
    change(process, repository, third, fourth).run(lambda: None)
    assert repository.numbers(fourth) == {4}
