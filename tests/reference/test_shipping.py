"""Keys and alerts in docker/ are those that the code makes now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.contract.config import Limits
from intaglio.contract.server import Server
from reference.pages import ROOT
from reference.shipping import PROXY, proxy, with_key, written_files

OVERLAY = ROOT / "docker/kubernetes/overlays/l4/intaglio.yaml"


def test_files_are_as_the_code_writes_them() -> None:
    wrong = [name for name, text in written_files(ROOT).items() if (ROOT / name).read_text() != text]
    assert wrong == [], "run: python -m reference"


def test_a_changed_configuration_gets_another_key() -> None:
    before = OVERLAY.read_text()
    changed, job = with_key(before.replace("images: 2", "images: 1"), ROOT)
    same, same_job = with_key(before, ROOT)
    assert same == before
    assert changed != before.replace("images: 2", "images: 1")
    assert job.startswith("intaglio-build-tensorrt-rtx-1-6-1-120-")
    assert job != same_job


def test_the_library_is_the_one_that_images_get(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "constraints.txt").write_text("tensorrt-rtx-cu12==1.7.1.116\n")
    text, job = with_key(OVERLAY.read_text(), tmp_path)
    assert "build: ../build/tensorrt-rtx-1.7.1.116/" in text
    assert job.startswith("intaglio-build-tensorrt-rtx-1-7-1-116-")


def test_a_runtime_that_the_machine_would_choose_is_refused() -> None:
    with pytest.raises(ValueError, match="runtime: auto; a cluster needs one of onnxruntime, tensorrt-rtx"):
        with_key(OVERLAY.read_text().replace("runtime: tensorrt-rtx", "runtime: auto"), ROOT)


def test_a_build_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="build: must be"):
        with_key("base: {folder: x}\nbuild: ../build\n", ROOT)


def test_the_proxy_gets_ports_and_the_largest_message() -> None:
    text = (ROOT / PROXY).read_text()
    limits = Limits(input_images=2, input_bytes=1 << 20, prompt_bytes=1024)
    written = proxy(text, limits, Server(http_port=9000, grpc_port=9001))
    largest = 2 * (1 << 20) + 2 * 1024 + (1 << 20)
    assert [line.strip().split("   #")[0] for line in changed(text, written)] == [
        f"max_request_bytes: {largest}",
        f"request_body_buffer_limit: {largest}",
        "address: {socket_address: {address: intaglio-servers, port_value: 9001}}",
        "health_check_config: {port_value: 9000}",
    ]
    assert yaml.safe_load(written).keys() == yaml.safe_load(text).keys()


def changed(before: str, after: str) -> list[str]:
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [new for old, new in pairs if old != new]
