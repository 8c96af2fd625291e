"""What the hub refuses is one line: the file, the reason, what helps. The errors are those of the hub's own
library.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from intaglio.errors import BuildError
from intaglio_export.weights.hub import AbsentError, HubFiles, hub_file, hub_folder
from intaglio_export.weights.hub_problems import hub_problem

from ...hub import Hub, local_hub, without_hub

NAME = "somebody/base"
FILE = "unet/model.safetensors"
ALL = HubFiles(select=list, missing=lambda _: "everything")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub(tmp_path / "cache", monkeypatch) as hub:
        hub.repositories[NAME] = {"config.json": b"{}", FILE: b"weights"}
        yield hub


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library asks five times and waits 23 s in all."""
    monkeypatch.setattr("time.sleep", lambda _: None)


def refusal_of_folder(revision: str | None = None) -> str:
    with pytest.raises(AbsentError) as refused:
        hub_folder(NAME, revision, ALL)
    return str(refused.value)


def refusal_of_file(path: str = FILE) -> str:
    with pytest.raises(AbsentError) as refused:
        hub_file(NAME, path)
    return str(refused.value)


REFUSALS = {
    "gated": (
        403,
        "X-Error-Code",
        "GatedRepo",
        rf"it is gated: .*https://huggingface.co/{NAME}, and set HF_TOKEN",
    ),
    "private": (401, "X-Error-Code", "RepoNotFound", "the hub has no such repository, or HF_TOKEN is needed"),
    "disabled": (403, "X-Error-Message", "Access to this resource is disabled.", "the hub has disabled"),
    "wrong token": (
        401,
        "X-Error-Message",
        "Invalid credentials in Authorization header",
        "the hub answers 401: HF_TOKEN is wrong or has expired",
    ),
    "other token": (403, "X-Error-Message", "no", "the hub answers 403: HF_TOKEN may not read it"),
    "too many": (429, "X-Error-Message", "no", "the hub answers 429: wait, or set HF_TOKEN"),
    "unwell": (500, "X-Error-Message", "no", "the hub answers 500: try again later"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_the_reason_and_the_file(hub: Hub, case: str) -> None:
    status, header, value, expected = REFUSALS[case]
    hub.refusals[NAME] = (status, {header: value})
    assert re.match(expected, refusal_of_folder())
    hub.refusals = {f"{NAME}/{FILE}": (status, {header: value})}
    for refusal in (refusal_of_file(), refusal_of_folder()):
        assert re.match(f"{FILE}: {expected}", refusal)
        assert "\n" not in refusal


def test_an_unknown_repository_revision_and_file_are_named(hub: Hub) -> None:
    assert refusal_of_file("vae/none.json") == "the repository has no such file"
    hub.refusals[NAME] = (404, {"X-Error-Code": "RevisionNotFound"})
    assert refusal_of_folder("v2") == "the repository has no revision v2"
    hub.refusals.clear()
    hub.repositories.clear()
    assert refusal_of_folder().startswith("the hub has no such repository")


def test_without_a_network_the_hub_and_the_cache_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    without_hub(tmp_path, monkeypatch)
    for refusal in (refusal_of_folder(), refusal_of_file()):
        assert re.search(r"http://127.0.0.1:9 cannot be reached \(Connect\w*Error\)", refusal)
        assert f"copy {tmp_path} from a machine that has it" in refusal


def test_offline_mode_is_named() -> None:
    offline = OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    missing = LocalEntryNotFoundError("not cached")
    missing.__cause__ = offline
    for error in (offline, missing):
        problem = hub_problem(error, name=NAME)
        assert problem == "it is not in the cache, and HF_HUB_OFFLINE is set: unset it to download"
    assert hub_problem(LocalEntryNotFoundError("no cause"), name=NAME) == "it is not in the cache"


def test_a_full_disk_is_not_a_missing_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next candidate would not fit either."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(
        BuildError, match=rf"hub:{NAME}: {hub.cache}: the disk is full; HF_HOME names another"
    ):
        hub_folder(NAME, None, ALL)
    hub.repositories[NAME] = {"a.safetensors": b"data"}
    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(BuildError, match=rf"hub:{NAME}/a.safetensors: {hub.cache}: the disk is full"):
        hub_file(NAME, "a.safetensors")


def test_what_nobody_expected_says_its_first_words() -> None:
    problem = hub_problem(ValueError("a {strange}\nthing"), name=NAME)
    assert problem == "the hub's library fails (ValueError: a {strange} thing)"
