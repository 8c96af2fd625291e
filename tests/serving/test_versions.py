"""The repository of one server's Triton: written where it must be, and what a failed change takes back."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intaglio.builds.holds import BuildHold
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.architecture import Architecture, Residual
from intaglio.contract.config import Defaults, Execution, Limits, Profiles
from intaglio.errors import Unavailable
from intaglio.serving import change as changing
from intaglio.serving import versions as versioning
from intaglio.serving.change import VersionChange
from intaglio.serving.versions import ServedRepository, ServedVersion, read_version
from intaglio_export.deployment.repository import REPOSITORY, RepositoryOptions, write_repository

ARCHITECTURE = Architecture(
    latent_channels=3, vae_scale=1, tokens=77, text_width=8, text_width_2=8, pooled_width=8, time_ids=6,
    down_residuals=(Residual(channels=8, scale=1),), mid_residual=Residual(channels=8, scale=1), attentions=(), control_attentions=(),
)  # fmt: skip


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


@pytest.fixture
def versions(tmp_path: Path) -> Callable[[int], ServedVersion]:
    def make(number: int) -> ServedVersion:
        folder, key = tmp_path / f"build{number}", f"{number:064x}"
        write_repository(
            folder / REPOSITORY, RepositoryOptions(build_key=key, queue_size=4, workers=1, gpu=False)
        )
        manifest = BuildManifest(
            key=key, config_digest=key, rebuild="intaglio build x.yaml", base="x", architecture=ARCHITECTURE, scheduler={},
            scaling_factor=1.0, force_zeros_for_empty_prompt=True, precision="fp32", runtime="onnxruntime", target="cpu", versions={},
            profiles=Profiles(sizes=((64, 64),)), limits=Limits(), defaults=Defaults(), execution=Execution(), networks={},
            controlnets={}, loras=(), tokenizers=("a", "b"), poses=None, files={},
        )  # fmt: skip
        return read_version(folder, manifest, number=number, hold=BuildHold(folder, manifest))

    return make


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fill() -> None:
        def fail(path: Path, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(versioning, "write_whole", fail)
        monkeypatch.setattr("intaglio.builds.manifest.write_whole", fail)

    return fill


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(
    process: Models, repository: ServedRepository, old: ServedVersion, new: ServedVersion
) -> VersionChange:
    found: Any = process
    return VersionChange(found, repository, old, new, lambda _: None)


def test_a_restart_needs_no_room(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    repository, first, second = ServedRepository(tmp_path / "served"), versions(1), versions(2)
    repository.start_with(first)
    before = contents(repository.folder)
    repository.add(second)
    full_disk()
    repository.start_with(first)
    assert contents(repository.folder) == before
    with pytest.raises(Unavailable, match="served: the disk is full"):
        repository.start_with(second)


def test_a_full_disk_amid_a_reload(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    repository, first, second, process = (
        ServedRepository(tmp_path / "served"),
        versions(1),
        versions(2),
        Models(),
    )
    repository.start_with(first)
    before = contents(repository.folder)
    full_disk()
    with pytest.raises(Unavailable, match=r"the disk is full; version 1 .* still serves"):
        change(process, repository, first, second).run(pytest.fail)
    assert contents(repository.folder) == before
    assert process.loads == [*first.ensembles, *first.stages]


def test_what_could_not_be_taken_back_is_not_loaded(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    """The ensemble's file names the new version then: loaded, it would serve what nobody knows to be served."""
    repository, first, second, process = (
        ServedRepository(tmp_path / "served"),
        versions(1),
        versions(2),
        Models(),
    )
    repository.start_with(first)
    stages = len(first.stages)
    process.failing = {stages + 1: "the ensemble does not load"}
    original = process.load_model

    def load_model(model: str) -> None:
        if len(process.loads) == stages:
            full_disk()
        original(model)

    process.load_model = load_model  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="the ensemble does not load; version 1"):
        change(process, repository, first, second).run(pytest.fail)
    assert process.loads == [*second.stages, *second.ensembles], "neither again"
    assert repository.numbers(first) == {1}


def test_versions_that_did_not_go_at_their_time_go_later(
    tmp_path: Path, versions: Callable[[int], ServedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "_SETTLE_SECONDS", 0.0)
    repository, process = ServedRepository(tmp_path / "served"), Models()
    first, second, third, fourth = map(versions, range(1, 5))
    repository.start_with(first)
    process.failing = {len(first.stages) + len(first.ensembles) + 1: "cannot be unloaded"}
    with pytest.raises(
        Unavailable, match=r"cannot be unloaded; version 2 .* serves, version 1 .* goes with the next start"
    ):
        change(process, repository, first, second).run(lambda: None)
    assert repository.numbers(second) == {1, 2}
    process.failing, process.loaded = {}, {1, 3}
    change(process, repository, second, third).run(lambda: None)
    assert repository.numbers(third) == {1, 3}, "version 1 still answers somebody"
    process.loaded = {4}
    change(process, repository, third, fourth).run(lambda: None)
    assert repository.numbers(fourth) == {4}
