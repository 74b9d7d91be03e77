"""A bundle small enough to build in every test, a model store that is empty, and every kind of Redis."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from onnx import TensorProto, helper, numpy_helper
from redis import Redis
from redis.exceptions import RedisError

from services.dataplane import DataPlane
from services.inference import registry
from services.inference.bundle import Bundle, Data, Graph, Image, Manifest, Parity, Tensor, seal
from tests.conftest import free_port
from tests.registries import key_pair
from tests.services.scorers import PLAIN, scorer_bundle

MakeBundle = Callable[..., Bundle]
Keys = Callable[..., tuple[Path, Path]]


def linear_classifier(weights: np.ndarray) -> onnx.ModelProto:
    """uint8 images [N,1,2,2] -> logits, probabilities [N,3], as the contract wants them."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2, 2])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("logits", "probabilities")]
    graph = helper.make_graph(nodes, "classify", [images], outputs, [numpy_helper.from_array(weights, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="session")
def draft() -> Manifest:
    """What a trainer knows of the tiny classifier before it is sealed."""
    images = Tensor(name="images", dtype="uint8", shape=("N", 1, 2, 2))
    outputs = tuple(Tensor(name=name, dtype="float32", shape=("N", 3)) for name in ("logits", "probabilities"))
    parity = Parity(batch_sizes=(1, 2), max_abs_diff=1e-7, bound=1e-5, top1_agreement=1.0)
    return Manifest(
        name="tiny-linear",
        task="classification",
        network="linear",
        recipe="by hand",
        seed=0,
        dataset=Data(name="none", digest="0" * 64, splits={"train": 0}),
        image=Image(channels=1, height=2, width=2),
        class_names=("a", "b", "c"),
        graphs={
            "classify": Graph(file="classify.onnx", opset=20, inputs=(images,), outputs=outputs, parity=parity),
        },
        metrics={"accuracy": 0.5},
        versions={"onnx": "1.0"},
    )


@pytest.fixture
def make_bundle(tmp_path: Path, draft: Manifest) -> MakeBundle:
    """Seal a tiny classifier; another `weight` gives another digest, other fields go into the manifest."""

    def make(folder: str = "tiny", *, weight: float = 1.0, **fields: object) -> Bundle:
        directory = tmp_path / folder
        directory.mkdir()
        onnx.save(linear_classifier(np.full((4, 3), weight, np.float32)), directory / "classify.onnx")
        (directory / "card.md").write_text("A classifier that nobody trained.\n")
        return seal(directory, draft.model_copy(update=fields))

    return make


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[Path]:
    """BentoML's model store in a folder of this test: BENTOML_HOME is read at import, so the container is told."""
    path = tmp_path / "models"
    path.mkdir()
    BentoMLContainer.model_store.set(ModelStore(path))
    yield path
    BentoMLContainer.model_store.reset()


@pytest.fixture
async def scorers(empty_store: Path, tmp_path: Path) -> AsyncIterator[DataPlane]:
    """One that serves three scorers made by hand: `tiny-scorer` with every output, `plain`, and `few`, of 56 images."""
    for bundle in (
        scorer_bundle(tmp_path / "tiny-scorer"),
        scorer_bundle(tmp_path / "plain", outputs=PLAIN, name="plain"),
        scorer_bundle(tmp_path / "few", size=56, name="few"),
    ):
        registry.store(bundle)
    plane = DataPlane(["anomaly"])
    await plane.start()
    assert plane.ready, plane.problems
    yield plane
    await plane.stop()


PATIENCE = 60


@dataclass
class Server:
    """One redis-server without persistence; it knows how to start again on its port."""

    port: int
    arguments: list[str | Path]
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.arguments, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                # It answers when it listens at every address; the first one accepts connections before that.
                with contextlib.suppress(ConnectionError):  # a TLS port closes it
                    client.sendall(b"PING\r\n")
                    client.recv(1)
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def admin(self) -> Redis:
        return Redis(port=self.port, decode_responses=True)


StartRedis = Callable[..., Server]


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Start any number of servers, `start_redis("--requirepass", "secret")`; all are stopped at the end."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    servers: list[Server] = []

    def start(*arguments: str | Path, port_option: str = "--port", port: int | None = None) -> Server:
        port = port or free_port()
        folder = tmp_path / f"redis-{port}"
        folder.mkdir()
        (folder / "redis.conf").write_text("bind 127.0.0.1\nsave ''\n")
        server = Server(port, [program, "redis.conf", port_option, str(port), *arguments], folder)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.process.send_signal(signal.SIGCONT)
        server.process.kill()
        server.process.wait(timeout=PATIENCE)


def until(true: Callable[[], Any]) -> None:
    """Wait for what other processes bring about."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(RedisError):
            if true():
                return
        time.sleep(0.05)
    raise AssertionError("it never came true")


@dataclass
class Replicated:
    """A primary, its replica and the three Sentinels that watch them under the name `duet`."""

    primary: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels) + "/duet"


@pytest.fixture
def replicated(start_redis: StartRedis) -> Replicated:
    primary = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(primary.port))
    watch = ["--sentinel", "monitor", "duet", "127.0.0.1", str(primary.port), "2"]
    quick = ["--sentinel", "down-after-milliseconds", "duet", "500", "--sentinel", "failover-timeout", "duet", "2000"]
    sentinels = [start_redis("--sentinel", *watch, *quick) for _ in range(3)]

    def know_each_other() -> bool:
        states = [server.admin().sentinel_master("duet") for server in sentinels]
        return all(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 for state in states)

    until(know_each_other)
    until(lambda: primary.admin().info("replication")["slave0"]["state"] == "online")
    return Replicated(primary, replica, sentinels)


@pytest.fixture
def cluster(start_redis: StartRedis) -> list[Server]:
    """Three primaries, then their three replicas in any order."""
    enabled = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]
    servers = [start_redis(*enabled, "--cluster-port", str(free_port())) for _ in range(6)]
    nodes = [f"127.0.0.1:{server.port}" for server in servers]
    create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True, timeout=PATIENCE)
    until(lambda: all(server.admin().cluster("info")["cluster_state"] == "ok" for server in servers))
    until(lambda: all(server.admin().info("replication")["slave0"]["state"] == "online" for server in servers[:3]))
    return servers


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Files with a new pair of keys: `keys("name")` gives the private and the public one."""
    return partial(key_pair, tmp_path)
