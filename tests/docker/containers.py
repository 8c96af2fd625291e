"""Images and containers without a daemon: buildah builds, crun runs.

crun gives what a cluster gives: a read-only root, a user, no capability, seccomp, and namespaces of its own.
Its network has a loopback and nothing else, which is what `NetworkPolicy` leaves for outgoing connections.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from .package_index import PackageIndex
from .tools import ROOT, output_of, program

__all__ = ["Container", "Image", "Store", "StoreUnusable"]

_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "network")
_CAPABILITIES: Final = ("bounding", "effective", "permitted", "inheritable", "ambient")
_SECCOMP: Final = Path("/usr/share/containers/seccomp.json")
"""The profile that podman and CRI-O run containers with."""
_MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/sys/firmware")
_GRACE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, mounted; nothing is written to it."""

    root: Path
    config: Mapping[str, Any]
    """`User`, `Env`, `Entrypoint`, `Cmd`, `Healthcheck`, `ExposedPorts` and so on."""
    history: str

    @property
    def environment(self) -> list[str]:
        return list(self.config["Env"])


class StoreUnusable(Exception):  # noqa: N818  (as the names in intaglio.errors)
    """buildah is installed, and cannot work on this machine."""


class Store:
    """Images in `folder`, from `__init__` to `close`; `remove` leaves nothing of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._buildah = program("buildah", "Debian's buildah")
        self._working: list[str] = []
        problems = []
        for self._driver in ("overlay", "vfs"):  # an overlay may be refused on top of another one
            try:
                self.run("mount", self._from("scratch"))
            except (AssertionError, subprocess.TimeoutExpired) as error:
                self._working.clear()
                problems.append(str(error))
            else:
                return
        raise StoreUnusable(f"buildah cannot keep images here: {'; '.join(problems)}")

    def run(self, *words: str | Path, seconds: float = 120) -> str:
        """Output of `buildah WORDS`."""
        places = ("--root", self.folder / "images", "--runroot", self.folder / "run")
        return output_of(
            self._buildah, "--storage-driver", self._driver, *places, *words, seconds=seconds
        ).strip()

    def import_folder(self, folder: Path, tag: str) -> None:
        """An image of the files in `folder`."""
        container = self._from("scratch")
        self.run("add", "--quiet", container, f"{folder}/", "/", seconds=300)
        self.run("commit", "--quiet", container, tag, seconds=300)
        self.run("rm", container)
        self._working.remove(container)

    def build(self, tag: str, *, target: str, arguments: Mapping[str, str], index: PackageIndex) -> None:
        """`docker/Dockerfile` of this checkout."""
        secret = self.folder / "pip.conf"
        secret.write_text(index.pip_conf)
        words: list[str] = ["--isolation", "chroot", "--format", "docker", "--layers", "--quiet"]
        words += ["--target", target, "--tag", tag, "--secret", f"id=pip,src={secret}"]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        for here, there in index.volumes:
            words += ["--volume", f"{here}:{there}:ro"]
        self.run("bud", *words, "--file", ROOT / "docker/Dockerfile", ROOT, seconds=900)

    def open(self, tag: str) -> Image:
        """The image `tag`, with its files where they can be read."""
        root = Path(self.run("mount", self._from(tag)))
        described = json.loads(self.run("inspect", "--type", "image", tag))
        return Image(root, described["Docker"]["config"], json.dumps(described["History"]))

    def tags(self) -> list[str]:
        """Names of the images."""
        return self.run("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").split()

    def close(self) -> None:
        """Unmount what was opened."""
        for container in self._working:
            self.run("rm", container)
        self._working.clear()

    def remove(self) -> None:
        """Remove everything."""
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self.folder)

    def _from(self, tag: str) -> str:
        container = self.run("from", "--pull-never", tag)
        self._working.append(container)
        return container


@dataclass(kw_only=True)
class Container:
    """A container of a pod, as Kubernetes' YAML has both, from `start` to `stop`."""

    image: Image
    folder: Path
    """For crun's files and the output; new and empty."""
    pod: Mapping[str, Any]
    """The pod's `spec`; its first container is the one."""
    sources: Mapping[str, Path]
    """Folder of every volume that is a claim or a ConfigMap, by the volume's name."""
    args: Sequence[str] | None = None
    """In the place of the YAML's."""
    name: str = "intaglio"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        """Start it."""
        self.folder.mkdir(parents=True)
        (self.folder / "config.json").write_text(json.dumps(self._config()))
        with self.output_file.open("wb") as output:
            self._process = subprocess.Popen(
                self._crun("run", "--bundle", str(self.folder), self.name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left of it."""
        if self.process.poll() is None:
            subprocess.run(self._crun("kill", self.name, "KILL"), check=False)
            self.process.wait(_GRACE_SECONDS)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def output_file(self) -> Path:
        return self.folder / "output"

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.output_file.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        return int(json.loads(output_of(*self._crun("state", self.name)))["pid"])

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def stop(self, seconds: float) -> int:
        """Ask it to stop as Docker and Kubernetes do; its exit code."""
        output_of(*self._crun("kill", self.name, signal.Signals.SIGTERM.name.removeprefix("SIG")))
        return self.wait(seconds)

    def run(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        spec = self.folder / f"process-{time.monotonic_ns()}.json"
        spec.write_text(json.dumps(self._process_spec(words)))
        return subprocess.run(
            self._crun("exec", "--process", str(spec), self.name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def _crun(self, *words: str) -> list[str]:
        # WAR: crun 1.8 refuses a machine with both versions of cgroups, so the second one is hidden from it.
        hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        crun = [
            program("crun", "Debian's crun"),
            "--root",
            str(self.folder / "state"),
            "--cgroup-manager=disabled",
        ]
        return ["unshare", "--mount", "sh", "-c", hide, "sh", *crun, *words]

    @property
    def _container(self) -> Mapping[str, Any]:
        (container,) = self.pod["containers"]
        return dict(container)

    def _process_spec(self, words: Sequence[str]) -> dict[str, Any]:
        who, rights = self.pod["securityContext"], self._container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        extra = [f"{one['name']}={one['value']}" for one in self._container.get("env", ())]
        return {
            "user": {"uid": who["runAsUser"], "gid": who["runAsGroup"]},
            "args": list(words),
            "cwd": self.image.config["WorkingDir"],
            "env": [*self.image.environment, *extra],
            "noNewPrivileges": not rights["allowPrivilegeEscalation"],
            "capabilities": {name: [] for name in _CAPABILITIES},
        }

    def _config(self) -> dict[str, Any]:
        args = self._container["args"] if self.args is None else self.args
        rights = self._container["securityContext"]
        return {
            "ociVersion": "1.0.2",
            "hostname": self.name,
            "root": {"path": str(self.image.root), "readonly": rights["readOnlyRootFilesystem"]},
            "process": self._process_spec([*self.image.config["Entrypoint"], *args]),
            "mounts": [*_SYSTEM_MOUNTS, *map(self._mount, self._container["volumeMounts"])],
            "linux": {
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
                "maskedPaths": list(_MASKED),
                "readonlyPaths": ["/proc/sys"],
                "seccomp": seccomp_profile(),
            },
        }

    def _mount(self, mount: Mapping[str, Any]) -> dict[str, Any]:
        (volume,) = [one for one in self.pod["volumes"] if one["name"] == mount["name"]]
        there = mount["mountPath"]
        if "emptyDir" in volume:
            size = volume["emptyDir"]["sizeLimit"].removesuffix("i")
            options = ["nosuid", "nodev", "noexec", "mode=1777", f"size={size}"]  # as Docker mounts one
            return {"destination": there, "type": "tmpfs", "source": "tmpfs", "options": options}
        source = self.sources[mount["name"]] / mount.get("subPath", "")
        mode = "ro" if mount.get("readOnly") else "rw"
        return {"destination": there, "type": "bind", "source": str(source), "options": ["bind", mode]}


_SYSTEM_MOUNTS: Final[tuple[dict[str, Any], ...]] = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "mode=755", "size=64k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance"],
    },
)


def seccomp_profile() -> dict[str, Any]:
    """What a process without capabilities on x86-64 gets of the profile of this machine's container tools."""
    profile = json.loads(_SECCOMP.read_text())
    calls = []
    for rule in profile["syscalls"]:
        needs, unless = rule.get("includes") or {}, rule.get("excludes") or {}
        if needs.get("caps") or "amd64" not in needs.get("arches", ["amd64"]):
            continue
        if "amd64" in unless.get("arches", ()):
            continue
        kept = {key: rule[key] for key in ("names", "action", "errnoRet") if rule.get(key) is not None}
        if rule.get("args"):
            kept["args"] = rule["args"]
        calls.append(kept)
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": calls,
    }
