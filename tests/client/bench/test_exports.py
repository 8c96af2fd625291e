from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import IntaglioError
from intaglio_client.bench.exports import read_export, samples_of
from intaglio_client.bench.runs import Run, runs_of

from .runs import workload_of

PICTURE = bytes(range(256)) * 2
SECOND = 1_000_000_000


def run_of(kind: str = "closed", **values: Any) -> Run:
    values = {"concurrency": [1], "requests": 3, "warm_up": 1, **values}
    return runs_of(workload_of(one={"kind": kind, **values}))[0]


def answered(seed: int, **outputs: str) -> dict[str, Any]:
    """A request as perf_analyzer writes it, sent at `seed` seconds and answered half a second later."""
    output = {
        "metadata": json.dumps({"seed": seed}),
        "timings": json.dumps({"denoise": 0.25, "vae": 0.125}),
        "image": PICTURE.decode("latin-1"),
        **outputs,
    }
    return {
        "timestamp": seed * SECOND,
        "request_inputs": {"prompt": "a"},
        "response_timestamps": [seed * SECOND + SECOND // 2],
        "response_outputs": [output],
    }


def export_of(path: Path, requests: list[dict[str, Any]]) -> Path:
    data = {"experiments": [{"requests": requests}], "version": "2.45.0"}
    path.write_bytes(json.dumps(data, ensure_ascii=False).encode("latin-1"))
    return path


def test_pictures_become_digests_of_their_bytes(tmp_path: Path) -> None:
    """The file is no UTF-8, as perf_analyzer's is not."""
    (request,) = read_export(export_of(tmp_path / "export.json", [answered(1)]))
    digest = hashlib.sha256(PICTURE).hexdigest()
    assert request["response_outputs"][0]["image"] == f"sha256:{digest}"


def test_texts_are_read_as_unicode(tmp_path: Path) -> None:
    request = answered(1)
    request["request_inputs"]["prompt"] = "é".encode().decode("latin-1")
    (found,) = read_export(export_of(tmp_path / "export.json", [request]))
    assert found["request_inputs"]["prompt"] == "é"


def test_the_warm_up_and_what_came_after_the_last_are_left_out(tmp_path: Path) -> None:
    run = run_of()
    again = answered(0)
    again["timestamp"] = 9 * SECOND
    again["response_timestamps"] = [99 * SECOND]
    requests = [answered(3), answered(2), answered(0), answered(1), again]
    samples = samples_of(run, read_export(export_of(tmp_path / "export.json", requests)))
    assert [sample.place for sample in samples] == [1, 2, 3]
    assert [sample.sent for sample in samples] == [0.0, 1.0, 2.0]
    assert {sample.seconds for sample in samples} == {0.5}
    assert samples[0].stages == {"denoise": 0.25, "vae": 0.125}
    assert samples[0].picture is not None


def test_without_metadata_the_order_of_sending_counts(tmp_path: Path) -> None:
    requests = [answered(seed, metadata="") for seed in range(4)]
    samples = samples_of(run_of(), read_export(export_of(tmp_path / "export.json", requests)))
    assert [sample.place for sample in samples] == [1, 2, 3]


@pytest.mark.parametrize(
    ("requests", "problem"),
    [
        ([answered(0), answered(1), answered(3)], "1 of 3 requests had no answer"),
        ([answered(seed) for seed in (0, 1, 2, 77)], "the seed 77, which no request has"),
        ([answered(seed, image="") for seed in range(4)], "got no picture"),
    ],
)
def test_what_was_not_measured_is_named(tmp_path: Path, requests: list[Any], problem: str) -> None:
    found = read_export(export_of(tmp_path / "export.json", requests))
    with pytest.raises(IntaglioError, match=problem):
        samples_of(run_of(), found)


def test_something_else_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"experiments": []}')
    with pytest.raises(IntaglioError, match="cannot be read as perf_analyzer's export"):
        read_export(tmp_path / "export.json")
    with pytest.raises(IntaglioError, match="measured no request"):
        read_export(export_of(tmp_path / "export.json", []))


def test_a_stream_has_first_event_and_first_preview(tmp_path: Path) -> None:
    run = run_of("streaming", preview=64, requests=1, warm_up=0)
    request = answered(0)
    event = {"event": '{"kind": "progress"}', "image": "", "timings": "", "metadata": ""}
    request["response_outputs"] = [
        {**event, "preview": ""},
        {**event, "preview": "JPEG"},
        {**request["response_outputs"][0], "event": '{"kind": "result"}'},
    ]
    request["response_timestamps"] = [SECOND // 10, SECOND // 5, SECOND]
    (sample,) = samples_of(run, read_export(export_of(tmp_path / "export.json", [request])))
    assert (sample.first_event, sample.first_preview, sample.seconds) == (0.1, 0.2, 1.0)


def test_a_stream_that_failed_is_named(tmp_path: Path) -> None:
    run = run_of("streaming", requests=1, warm_up=0)
    request = answered(0, image="", event='{"kind": "failed"}')
    with pytest.raises(IntaglioError, match=r"got no picture: .*failed"):
        samples_of(run, read_export(export_of(tmp_path / "export.json", [request])))
