"""A built image in a container with the limits of its pod: what it holds, answers, refuses, and how it ends."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from deploy.manifests.render import render
from services.inference.bundle import load
from services.inference.classifier import Classifier
from tests.conftest import PATIENCE, free_port
from tests.images.conftest import ROOT, Build, Built, run
from tests.images.pod import Container, Object, specification, start

pytestmark = [pytest.mark.nightly, pytest.mark.server]

MODEL = "mnist-cnn"
REFERENCE = ROOT / "services/reference" / MODEL
USERS = {"of the image": (10001, 10001), "of OpenShift": (1000650000, 0)}
OUTPUTS = ("logits", "probabilities")
READY_SECONDS = 5  # of its one CPU, which are the seconds that it takes where nothing else runs
UPLOADS = 64
CALLERS = 4
UNWANTED = ("pip", "gcc", "cc", "c++", "ld", "as", "apt", "apt-get", "dpkg", "sh", "bash", "uv")

Run = Callable[..., Container]


@pytest.fixture(scope="module")
def image(build: Build) -> Built:
    return build("first", MODEL)


@pytest.fixture(scope="module")
def rootfs(image: Built) -> Path:
    container = run(image.environment, "buildah", "from", image.name)
    return Path(run(image.environment, "buildah", "mount", container))


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """Of the laptop's overlay, whose limits are the tightest."""
    return [item for item in yaml.safe_load_all(render(ROOT / "deploy/kubernetes/overlays/laptop")) if item]


@pytest.fixture(scope="module")
def run_container(
    objects: list[Object], image: Built, rootfs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., object]:
    @contextmanager
    def running(user: tuple[int, int] = USERS["of the image"]) -> Iterator[Container]:
        port = free_port()
        specified = specification(objects, image.config(), rootfs, port, user)
        container = start(specified, tmp_path_factory.mktemp("run") / "bundle", f"duet-{port}", port)
        try:
            yield container
        finally:
            container.end()

    return running


@pytest.fixture(scope="module")
def container(run_container: Callable[..., object]) -> Iterator[Container]:
    with run_container() as running:  # type: ignore[attr-defined]
        running.wait_until_ready()
        yield running


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), np.uint8)


def question(pixels: np.ndarray) -> dict[str, object]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.reshape(-1).tolist()}
    return {"inputs": [tensor], "outputs": [{"name": name} for name in OUTPUTS]}


def ask(container: Container, pixels: np.ndarray) -> dict[str, np.ndarray]:
    answer = httpx.post(f"{container.url}/v2/models/{MODEL}/infer", json=question(pixels), timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.array(output["data"], np.float32).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


def test_it_holds_no_compiler_no_pip_and_no_shell(rootfs: Path) -> None:
    programs = {
        path.name
        for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "app/bin")
        for path in (rootfs / folder).glob("*")
    }
    assert "duet" in programs
    assert not programs & set(UNWANTED)
    site = rootfs / "app/lib/python3.11/site-packages"
    assert (site / "onnxruntime").is_dir()
    assert not [name for name in ("pip", "setuptools", "torch", "uv") if (site / name).exists()]
    assert not list((rootfs / "var").rglob("*.deb"))


def test_every_module_has_bytecode(rootfs: Path) -> None:
    bytecode = rootfs / "app/bytecode"
    site = Path("app/lib/python3.11/site-packages")
    for folder in (Path("usr/lib/python3.11"), site / "services", site / "bentoml"):
        modules = {path.relative_to(rootfs).with_suffix("") for path in (rootfs / folder).rglob("*.py")}
        compiled = {
            path.relative_to(bytecode).with_name(path.name.partition(".")[0])
            for path in (bytecode / folder).rglob("*.pyc")
        }
        assert len(modules - compiled) <= len(modules) / 100, modules - compiled


def test_nothing_but_tmp_can_be_written(container: Container, rootfs: Path) -> None:
    root = Path(f"/proc/{container.init()}/root")
    status = (Path(f"/proc/{container.init()}/status")).read_text()
    held = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert held["Uid"].split() == ["10001"] * 4
    assert {held[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert held["NoNewPrivs"] == "1"
    assert held["Seccomp"] == "2", "a filter"
    assert os.statvfs(root).f_flag & os.ST_RDONLY
    assert {path.name for path in (root / "tmp").iterdir()}, "BENTOML_HOME"


def test_it_is_ready_within_five_seconds_of_its_cpu(run_container: Callable[..., object]) -> None:
    for name, user in USERS.items():
        begin = time.monotonic()
        with run_container(user) as running:  # type: ignore[attr-defined]
            running.wait_until_ready()
            wall, stats = time.monotonic() - begin, running.stats()
            seconds = stats["cpu"]["usage"]["total"] / 1e9
            memory = stats["memory"]["usage"]["max"] / 2**20
            print(f"user {name}: ready after {wall:.1f} s, {seconds:.1f} of them CPU; {memory:.0f} MiB at most")
            assert seconds < READY_SECONDS
            assert ask(running, images(3))["probabilities"].shape == (3, 10)


def test_answers_are_those_of_this_process(container: Container) -> None:
    pixels = images(7)
    expected = Classifier(load(REFERENCE), threads=1).run("classify", {"images": pixels})
    found = ask(container, pixels)
    for name in OUTPUTS:
        np.testing.assert_array_equal(found[name], expected[name], name)


def upload(port: int, size: int, answers: list[str]) -> None:
    """A body of `size` bytes, in pieces; what is answered to it, or why nothing is."""
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        try:
            client.sendall(head)
            for _ in range(size // 2**18 - 1):
                client.sendall(b" " * 2**18)
                time.sleep(0.1)
        except OSError:
            pass  # refused: the answer says so
        try:
            client.settimeout(20)  # a body that is accepted lacks its end, and gets no answer until its deadline
            answers.append(client.recv(12).decode().partition(" ")[2] or "closed")
        except OSError as error:
            answers.append(type(error).__name__)


def test_slow_uploads_beyond_the_budget_are_refused(container: Container, objects: list[Object]) -> None:
    settings = next(item for item in objects if item["kind"] == "ConfigMap")["data"]
    body, answers = int(settings["DUET_BODY_BYTES"]), list[str]()
    threads = [threading.Thread(target=upload, args=(container.port, body, answers)) for _ in range(UPLOADS)]
    for thread in threads:
        thread.start()
    tmp, most = Path("/proc", str(container.init()), "root", "tmp"), 0
    while any(thread.is_alive() for thread in threads):
        room = os.statvfs(tmp)
        most = max(most, (room.f_blocks - room.f_bfree) * room.f_frsize)
        time.sleep(0.2)
    size = room.f_blocks * room.f_frsize
    memory = container.stats()["memory"]
    counted = Counter(answers)
    print(
        f"{dict(counted)}; memory at most {memory['usage']['max'] / 2**20:.0f} of "
        f"{memory['usage']['limit'] / 2**20:.0f} MiB; /tmp at most {most / 2**20:.1f} of {size / 2**20:.0f} MiB"
    )
    fitting = int(settings["DUET_BODIES_BYTES"]) // body
    assert counted["429"] >= UPLOADS - 2 * fitting, counted
    assert most < size
    assert container.process.poll() is None, "killed"
    assert ask(container, images(1)).keys() == set(OUTPUTS)


def test_sigterm_under_load_ends_with_0(run_container: Callable[..., object]) -> None:
    with run_container() as running:  # type: ignore[attr-defined]
        running.wait_until_ready()
        outcomes: Counter[str] = Counter()
        stop = threading.Event()

        def call() -> None:
            with httpx.Client(timeout=PATIENCE) as client:
                while not stop.is_set():
                    try:
                        answer = client.post(f"{running.url}/v2/models/{MODEL}/infer", json=question(images(4)))
                        outcomes[str(answer.status_code)] += 1
                    except httpx.TransportError:  # it no longer accepts; preStop's sleep keeps these from a pod
                        outcomes["closed"] += 1
                        return

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        time.sleep(2)
        running.signal("TERM")
        status = running.process.wait(PATIENCE)
        stop.set()
        for caller in callers:
            caller.join()
        print(dict(outcomes))
        assert status == 0, running.log.read_text()
        assert set(outcomes) == {"200", "closed"}
        assert outcomes["200"] > CALLERS
