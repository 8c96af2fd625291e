"""The pods of the CPU overlay, run as Kubernetes would: the job builds, the server serves, and stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .cluster import CONFIG, config_text, container_of, deployment_of, pod_of
from .containers import Container, Image
from .health import check_health, wait_until_healthy

pytestmark = pytest.mark.ship

Objects = list[dict[str, Any]]
GET = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    print(answer.status)
    print(answer.read().decode())
"""
PICTURE = (
    "intaglio",
    "generate",
    "a person waving",
    "--pose",
    "waving-01",
    "--lora",
    "night:0.8",
    "--seed",
    "5",
)


def get(container: Container, path: str, port: int = 8000) -> tuple[int, str]:
    """Status and body of a request from inside the pod."""
    done = container.run("python", "-c", GET, f"http://127.0.0.1:{port}{path}")
    status, _, body = done.stdout.partition("\n")
    return int(status or 0), body


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def processes_of(container: Container) -> list[str]:
    return processes_in(os.stat(f"/proc/{container.pid}/ns/pid").st_ino)


def processes_in(namespace: int) -> list[str]:
    """Processes of the namespace of process ids whose inode is `namespace`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").stat().st_ino == namespace:
                found.append(process.name)
        except OSError:  # it has ended
            continue
    return found


def test_the_job_builds_into_the_folder_of_its_key(
    built: str, demo: Objects, volumes: dict[str, Path], tmp_path: Path
) -> None:
    deployment = deployment_of(demo, tmp_path)
    manifest = volumes["builds"] / Path(*deployment.build_folder.parts[-3:]) / "manifest.json"
    assert json.loads(manifest.read_text())["config_digest"] == deployment.digest
    assert manifest.stat().st_uid == 1000
    assert "/srv/build/onnxruntime-" in built


def test_the_probes_of_the_pod_are_answered(server: Container, demo: Objects) -> None:
    container = container_of(demo, "Deployment")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[name]["httpGet"]
        assert get(server, asked["path"], ports[asked["port"]])[0] == 200, name


def test_the_server_draws_and_can_write_nowhere_else(server: Container, volumes: dict[str, Path]) -> None:
    before = files_of(volumes["builds"])
    done = server.run(*PICTURE, "--out", "/tmp/picture.png")
    assert done.returncode == 0, done.stderr
    for place in ("/srv/build/x", "/srv/x", "/x", "/opt/intaglio/x"):
        refused = server.run("python", "-c", f"open({place!r}, 'w')")
        assert "Read-only file system" in refused.stderr, place
    assert files_of(volumes["builds"]) == before
    assert "model_repository" not in server.run("ls", "/tmp").stdout


def test_the_secret_of_the_administrator_is_handed_over_under_seccomp(server: Container) -> None:
    """So the server can reload: the runtime's profile allows what that needs."""
    status, _ = get(server, "/v2/health/ready")
    assert status == 200
    assert "restarts without loading" not in server.output
    commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in processes_of(server)]
    (triton,) = [words for words in commands if words[0].endswith("/tritonserver")]
    assert "--http-restricted-api=private" in triton
    assert "--exit-timeout-secs=300" in triton


def test_it_has_no_rights_and_no_network(server: Container) -> None:
    status = server.run("cat", "/proc/self/status").stdout
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["1000"] * 4
    assert int(lines["CapEff"], 16) == int(lines["CapBnd"], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert lines["Seccomp"] == "2"
    reached = server.run("python", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 2)")
    assert "Network is unreachable" in reached.stderr


def test_a_stop_finishes_the_picture_and_leaves_nothing(
    image: Image, demo: Objects, volumes: dict[str, Path], built: str, tmp_path: Path
) -> None:
    assert built
    before, picture = files_of(volumes["builds"]), tmp_path / "picture.png"
    pod, folder = pod_of(demo, "Deployment"), tmp_path / "bundle"
    answers: list[subprocess.CompletedProcess[str]] = []
    with Container(image=image, folder=folder, pod=pod, sources=volumes, name="stopped") as container:
        assert wait_until_healthy(container) > 0, "a server is not healthy before it has started"
        namespace = os.stat(f"/proc/{container.pid}/ns/pid").st_ino
        assert len(processes_of(container)) >= 5, "intaglio, Triton, and a process of each model"

        def ask() -> None:
            # From outside, through the pod's network: what runs inside ends with the pod.
            network = f"--net=/proc/{container.pid}/ns/net"
            command = [
                "nsenter",
                network,
                sys.executable,
                "-m",
                *PICTURE,
                "--steps",
                "60",
                "--out",
                str(picture),
            ]
            answers.append(subprocess.run(command, capture_output=True, text=True, check=False))

        asking = threading.Thread(target=ask)
        asking.start()
        while "\nintaglio_running 1" not in get(container, "/metrics", 8002)[1]:
            assert asking.is_alive()
        assert container.stop(60) == 0, container.output
        asking.join()
    (answer,) = answers
    assert answer.returncode == 0, answer.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "stopped" in container.output
    assert processes_in(namespace) == []
    assert files_of(volumes["builds"]) == before
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not any((folder / "state").iterdir())


def test_a_server_refuses_a_build_of_another_configuration(
    image: Image, demo: Objects, volumes: dict[str, Path], built: str, tmp_path: Path
) -> None:
    """The ConfigMap has changed, and nobody has built since."""
    assert built
    changed = tmp_path / "deployment"
    changed.mkdir()
    (changed / CONFIG).write_text(config_text(demo).replace("steps: 20", "steps: 21"))
    sources = {**volumes, "deployment": changed}
    pod = pod_of(demo, "Deployment")
    with Container(
        image=image, folder=tmp_path / "bundle", pod=pod, sources=sources, name="other"
    ) as container:
        assert container.wait(60) == 1
        assert check_health(container).returncode != 0
    assert "was built from another configuration than intaglio.yaml is now" in container.output
    assert "intaglio build configs/intaglio.yaml" in container.output


def test_a_server_refuses_what_is_not_built(
    image: Image, demo: Objects, volumes: dict[str, Path], tmp_path: Path
) -> None:
    sources = {**volumes, "builds": tmp_path / "empty"}
    sources["builds"].mkdir()
    pod = pod_of(demo, "Deployment")
    with Container(
        image=image, folder=tmp_path / "bundle", pod=pod, sources=sources, name="empty"
    ) as container:
        assert container.wait(60) == 1
    assert "intaglio build configs/intaglio.yaml" in container.output
