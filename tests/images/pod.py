"""A container as a pod's manifest has it, run by runc: limits, user, capabilities, filter, read-only root, /tmp."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.manifests.objects import in_bytes, of_kind, serving, volumes
from tests.conftest import PATIENCE
from tests.images.conftest import SECCOMP

Object = dict[str, Any]
DEFAULT_ACTION = "SCMP_ACT_ERRNO"
CPU_PERIOD = 100_000  # microseconds


def specification(objects: list[Object], image: Object, rootfs: Path, port: int, user: tuple[int, int]) -> Object:
    """The OCI configuration of the classification service of rendered objects, with one CPU."""
    deployment = of_kind(objects, "Deployment")["duet-classification"]
    container = serving(deployment)
    settings = {"DUET_THREADS": "1"}
    for reference in container["envFrom"]:
        settings |= of_kind(objects, "ConfigMap")[reference["configMapRef"]["name"]]["data"]
    arguments = [str(port) if value == "3000" else value for value in container["args"]]
    return confined(deployment, container, image["config"], rootfs, arguments, user, settings)


def confined(
    workload: Object,
    container: Object,
    config: Object,
    rootfs: Path,
    arguments: list[str],
    user: tuple[int, int],
    settings: Mapping[str, str],
) -> Object:
    """The OCI configuration of a container of a Deployment or a Job, with one CPU.

    As a kubelet does, it brings the file in which names of hosts are.
    """
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    (scratch,) = (volume for volume in volumes(workload).values() if "emptyDir" in volume)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user[0], "gid": user[1]},
            "args": [*config["Entrypoint"], *arguments],
            "env": [*config["Env"], *(f"{key}={value}" for key, value in settings.items())],
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "root": {"path": str(rootfs), "readonly": security["readOnlyRootFilesystem"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind", "ro"]},
            {
                "destination": "/tmp",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777", f"size={in_bytes(scratch['emptyDir']['sizeLimit'])}"],
            },
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],  # the host's network
            "resources": {
                "memory": {"limit": in_bytes(container["resources"]["limits"]["memory"])},
                "cpu": {"quota": CPU_PERIOD, "period": CPU_PERIOD},
            },
            "seccomp": seccomp(json.loads(SECCOMP.read_text())),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def seccomp(profile: Object) -> Object:
    """The filter that container engines give by default, for a process on amd64 without any capability."""
    kept = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if includes.get("caps") or "amd64" not in includes.get("arches", ["amd64"]):
            continue
        if "amd64" in excludes.get("arches", []):
            continue
        wanted = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        kept.append(wanted)
    assert profile["defaultAction"] == DEFAULT_ACTION
    return {
        "defaultAction": DEFAULT_ACTION,
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": kept,
    }


@dataclass(frozen=True)
class Container:
    """A running container."""

    identity: str
    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def stats(self) -> Object:
        """CPU in nanoseconds and memory in bytes, of its cgroup."""
        answer = subprocess.run(
            ["runc", "events", "--stats", self.identity], check=True, capture_output=True, text=True
        )
        found: Object = json.loads(answer.stdout)["data"]
        return found

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def init(self) -> int:
        """The process number of its first process, on the host."""
        state = subprocess.run(["runc", "state", self.identity], check=True, capture_output=True, text=True)
        return int(json.loads(state.stdout)["pid"])

    def signal(self, name: str) -> None:
        subprocess.run(["runc", "kill", self.identity, name], check=True)

    def end(self) -> None:
        subprocess.run(["runc", "delete", "--force", self.identity], check=False, capture_output=True)
        self.process.wait(PATIENCE)


def start(specified: Object, folder: Path, identity: str, port: int) -> Container:
    """Run it; its output goes to a file beside its configuration."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(specified))
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["runc", "run", "--bundle", folder, identity], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    return Container(identity, f"http://127.0.0.1:{port}", port, process, log)
