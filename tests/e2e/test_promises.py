"""What Duet's own batcher is for: each test shows that stock BentoML batching fails, and that Duet does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from services.inference.bundle import Bundle, Graph, Tensor, load, seal
from tests.conftest import free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

HERE = Path(__file__).parent
PATIENCE = 60
BUSY_SECONDS = 0.5  # until a request is being computed
LARGE = 128  # items of a large request
LARGE_SECONDS = 3  # that it takes, on any machine
NO_CACHE = {"Cache-Control": "no-store"}


def dear_graph(layers: int) -> onnx.ModelProto:
    """uint8 images [N,1,28,28] -> logits, probabilities [N,10]: 8 MFLOP an item and layer."""
    width = 2048
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(784, width)) / 784,
        "middle": rng.normal(size=(width, width)) / width**0.5,
        "last": rng.normal(size=(width, 10)) / width,
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["h0"]),
    ]
    for i in range(layers):
        nodes += [
            helper.make_node("MatMul", [f"h{i}", "middle"], [f"m{i}"]),
            helper.make_node("Tanh", [f"m{i}"], [f"h{i + 1}"]),
        ]
    nodes += [
        helper.make_node("MatMul", [f"h{layers}", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classify",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 10]) for name in ("logits", "probabilities")],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def seconds(graph: onnx.ModelProto) -> float:
    """What a large request takes in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = np.zeros((LARGE, 1, 28, 28), np.uint8)
    begin = time.perf_counter()
    session.run(None, {"images": images})
    return time.perf_counter() - begin


@pytest.fixture(scope="module")
def bundle(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The digit classifier's manifest around a dear graph."""
    [manifest] = model_store.glob("models/digits-cnn/*/manifest.json")
    draft = load(manifest.parent).manifest
    directory = tmp_path_factory.mktemp("dear")
    few = 16
    layers = max(few, int(few * LARGE_SECONDS / min(seconds(dear_graph(few)) for _ in range(3))))
    onnx.save(dear_graph(layers), directory / "classify.onnx")
    graph = draft.graphs["classify"]
    images = Tensor(name="images", dtype="uint8", shape=("N", 1, 28, 28))
    outputs = tuple(Tensor(name=name, dtype="float32", shape=("N", 10)) for name in ("logits", "probabilities"))
    dear = Graph(file="classify.onnx", opset=20, inputs=(images,), outputs=outputs, parity=graph.parity)
    return seal(directory, draft.model_copy(update={"name": "dear", "graphs": {"classify": dear}}))


@dataclass
class Service:
    """One of the two, under the same questions."""

    url: str
    body: Callable[[np.ndarray, str], dict[str, Any]]
    path: str
    computed: Callable[[], float]
    waiting: Callable[[], float] | None = None

    async def hold(self, count: int) -> None:
        """Wait until so many items wait, as far as the service says."""
        await asyncio.sleep(BUSY_SECONDS)
        end = time.monotonic() + PATIENCE
        while self.waiting is not None and await asyncio.to_thread(self.waiting) != count:
            assert time.monotonic() < end, f"{self.waiting()} items wait, not {count}"
            await asyncio.sleep(0.05)

    async def ask(self, client: httpx.AsyncClient, count: int, *, width: int = 28, caller: str = "1") -> httpx.Response:
        images = np.zeros((count, 1, 28, width), np.uint8)
        headers = NO_CACHE | {"X-Request-Id": caller}
        return await client.post(self.url + self.path, json=self.body(images, caller), headers=headers)


@pytest.fixture(scope="module")
def home(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BENTOML_HOME with the dear model."""
    home = tmp_path_factory.mktemp("home")
    store = [sys.executable, "-m", "training", "models", "import", str(bundle.path)]
    subprocess.run(store, check=True, env=os.environ | {"BENTOML_HOME": str(home)}, stdout=subprocess.DEVNULL)
    return home


@pytest.fixture
def duet(home: Path, serve: Any, request: pytest.FixtureRequest) -> Iterator[Service]:
    def body(images: np.ndarray, caller: str) -> dict[str, Any]:
        data = {"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
        return {"inputs": [data], "id": caller}

    settings = {"DUET_THREADS": "1", "DUET_REQUEST_TIMEOUT_MS": "120000"} | getattr(request, "param", {})
    with serve("classification", home=home, **settings) as server:
        computed, waiting = (partial(metric, server.url, name) for name in ("duet_batch_items_sum", "duet_queue_items"))
        yield Service(server.url, body, "/v2/models/dear/infer", computed, waiting)


@pytest.fixture(scope="module")
def stock(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("stock")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "GRAPH": str(bundle.graph_path("classify")),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "stock:Stock", "--working-dir", str(HERE)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=log, stderr=log, cwd=home)
    try:
        ready(url)
        for _ in range(12):  # past its dispatcher's training
            httpx.post(f"{url}/classify", json={"images": np.zeros((1, 1, 28, 28)).tolist()}, timeout=PATIENCE)
        yield Service(
            url,
            lambda images, _: {"images": images.tolist()},
            "/classify",
            lambda: httpx.post(f"{url}/computed", timeout=PATIENCE).json(),
        )
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ready(url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} is not ready after {PATIENCE} s")


def metric(url: str, name: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def caller_of_many() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=None))


async def behind_a_large_one(service: Service, *requests: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> list[Any]:
    """Ask while the model is busy, so that all wait together; returns their answers."""
    async with caller_of_many() as client:
        large = asyncio.create_task(service.ask(client, LARGE))
        await asyncio.sleep(BUSY_SECONDS)
        answers = await asyncio.gather(*(request(client) for request in requests))
        assert (await large).status_code == 200
    return answers


async def test_a_bad_request_fails_alone(stock: Service, duet: Service) -> None:
    async def statuses(service: Service) -> list[int]:
        widths = [28] * 11 + [27]
        requests = [lambda client, width=width: service.ask(client, 1, width=width) for width in widths]
        return [answer.status_code for answer in await behind_a_large_one(service, *requests)]

    assert await statuses(stock) == [500] * 12
    assert await statuses(duet) == [200] * 11 + [422]


async def test_a_caller_is_known_by_its_own_headers(stock: Service, duet: Service) -> None:
    names = [str(number) for number in range(8)]
    async with caller_of_many() as client:

        async def seen_by_stock(name: str) -> int:
            answer = await client.post(f"{stock.url}/caller", json={"items": [0]}, headers={"X-Request-Id": name})
            return int(answer.json()[0])

        assert await seen_by_stock("99") == 99
        assert await asyncio.gather(*map(seen_by_stock, names)) == [99] * 8  # of the first request ever
        answers = await asyncio.gather(*(duet.ask(client, 1, caller=name) for name in names))
    assert [answer.json()["id"] for answer in answers] == names
    assert [answer.headers["x-request-id"] for answer in answers] == names


async def test_a_large_request_does_not_hold_up_small_ones(stock: Service, duet: Service) -> None:
    async def order(service: Service) -> list[str]:
        done: list[str] = []
        async with caller_of_many() as client:

            async def ask(name: str, count: int) -> None:
                assert (await service.ask(client, count)).status_code == 200
                done.append(name)

            large = asyncio.create_task(ask("large", LARGE))
            await asyncio.sleep(BUSY_SECONDS)
            await asyncio.gather(*(ask("small", 1) for _ in range(8)))
            await large
        return done

    assert await order(stock) == ["large"] + ["small"] * 8
    assert await order(duet) == ["small"] * 8 + ["large"]


# The whole large request as one batch, so that nobody's turn comes before they leave.
@pytest.mark.parametrize("duet", [{"DUET_BATCH_ITEMS": str(LARGE)}], indirect=True)
async def test_callers_that_left_are_not_computed(stock: Service, duet: Service) -> None:
    async def computed(service: Service) -> float:
        before = service.computed()
        async with caller_of_many() as client:
            large = asyncio.create_task(service.ask(client, LARGE))
            await asyncio.sleep(BUSY_SECONDS)
            leaving = [asyncio.create_task(service.ask(client, 1)) for _ in range(20)]
            await service.hold(20)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            assert (await large).status_code == 200
            assert (await service.ask(client, 1)).status_code == 200  # whoever waited before it is done
        return service.computed() - before

    assert await computed(stock) == LARGE + 1 + 20
    assert await computed(duet) == LARGE + 1
    assert metric(duet.url, "duet_abandoned_items_total") == 20
