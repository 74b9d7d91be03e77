"""Faults under load, watched by a real Prometheus and Alertmanager: the right alert and no other reaches a webhook.

Sixty times as fast as in production: every duration in the rules and in the routes is a sixtieth.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from onnx import TensorProto, helper, numpy_helper

from services.inference import registry
from services.inference.bundle import Bundle, load, seal
from tests.conftest import PATIENCE, Serve, start_redis
from tests.deploy.monitoring.test_live import PICTURE
from tests.deploy.monitoring.watching import ROOT, alertmanager, database, prometheus, redis_exporter
from tests.e2e.test_staleness import successor
from tests.services.scorers import SHARES, scorer_bundle

pytestmark = [pytest.mark.nightly, pytest.mark.server]

FASTER = 60
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"\b(\d+)([smhd])\b")
SLOW_PASSES = 4  # products of matrices that the slow model adds, about a tenth of a second each


def faster(text: str) -> str:
    """Every duration a sixtieth, in milliseconds."""
    return DURATION.sub(lambda found: f"{int(found[1]) * UNITS[found[2]] * 1000 // FASTER}ms", text)


def fast_rules() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            expr = re.sub(r"\[[^\]]+\]|offset \w+", lambda found: faster(found[0]), rule["expr"])
            rule["expr"] = re.sub(r"\* (\d+) >=", lambda found: f"* {int(found[1]) // FASTER} >=", expr)
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    return dict(content)


@dataclass
class Webhook:
    """Who was told of what, and when."""

    told: list[tuple[float, str, str]] = field(default_factory=list)

    def take(self, receiver: str, body: dict[str, Any]) -> None:
        for alert in body["alerts"]:
            if alert["status"] == "firing":
                self.told.append((time.monotonic(), receiver, alert["labels"]["alertname"]))

    def since(self, begin: float) -> dict[tuple[str, str], float]:
        """Seconds until each alert came, by receiver and name."""
        found: dict[tuple[str, str], float] = {}
        for when, receiver, name in self.told:
            if when >= begin:
                found.setdefault((receiver, name), when - begin)
        return found


@contextmanager
def webhook() -> Iterator[tuple[Webhook, str]]:
    heard = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.take(self.path.strip("/"), json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield heard, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def slowed(old: Bundle, directory: Path) -> Bundle:
    """The same model, which also multiplies large matrices for nothing."""
    shutil.copytree(old.path, directory, ignore=shutil.ignore_patterns("model.yaml"))
    file = directory / old.manifest.graphs["classify"].file
    model = onnx.load(file)
    graph, size = model.graph, 1500
    weights = numpy_helper.from_array(np.full((size, size), 1e-4, np.float32), "slow_weights")
    zero = numpy_helper.from_array(np.zeros((), np.float32), "slow_zero")
    graph.initializer.extend([weights, zero])
    images = graph.input[0].name
    nodes = [
        helper.make_node("Cast", [images], ["slow_cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["slow_cast"], ["slow_max"], keepdims=0),
        helper.make_node("Mul", ["slow_weights", "slow_max"], ["slow_0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"slow_{number}", "slow_weights"], [f"slow_{number + 1}"])
        for number in range(SLOW_PASSES)
    ]
    nodes += [
        helper.make_node("ReduceMax", [f"slow_{SLOW_PASSES}"], ["slow_end"], keepdims=0),
        helper.make_node("Mul", ["slow_end", "slow_zero"], ["slow_nothing"]),
    ]
    output = next(node for node in graph.node if "probabilities" in node.output)
    output.output[list(output.output).index("probabilities")] = "fast_probabilities"
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "probabilities":
                node.input[place] = "fast_probabilities"
    nodes.append(helper.make_node("Add", ["fast_probabilities", "slow_nothing"], ["probabilities"]))
    graph.node.extend(nodes)
    for path in (file, directory / "manifest.json"):
        path.chmod(0o644)
    onnx.save(model, file)
    return seal(directory, old.manifest)


def three_days(folder: Path) -> Path:
    """A database with three days of good requests, sixty times as fast: tickets look back so far."""
    now = int(time.time())
    of = 'job="duet-classification",instance="before",route="/classify",status="200"'
    lines = []
    for name, labels in (("count", of), ("bucket", f'{of},le="0.25"')):
        lines.append(f"# TYPE duet_request_duration_seconds_{name} gauge")
        times = range(now - 3 * 86400 // FASTER, now, 5)
        lines += [
            f"duet_request_duration_seconds_{name}{{{labels}}} {100 * number} {when}"
            for number, when in enumerate(times)
        ]
    return database(lines, folder)


class Load(threading.Thread):
    """Calls something again and again, until it is stopped."""

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__()
        self._send, self._end = send, threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.05):
            self._send()

    def stop(self) -> None:
        self._end.set()
        self.join()


@dataclass
class Site:
    """What is watched: replicas of a classifier, a scorer, Redis."""

    heard: Webhook
    targets: Path
    urls: dict[str, str]
    redis: Any
    share: float = 0.0  # of strange images
    serving: tuple[str, ...] = ()

    def serve(self, *names: str) -> None:
        """Let these replicas of the classifier have the traffic, and be the only ones that Prometheus reads."""
        self.serving = names
        addresses = {
            "duet-classification": [self.urls[name].removeprefix("http://") for name in names],
            "duet-anomaly": [self.urls["scorer"].removeprefix("http://")],
        }
        content = [{"targets": some, "labels": {"job": job}} for job, some in addresses.items()]
        scratch = self.targets.with_suffix(".new")
        scratch.write_text(json.dumps(content))
        scratch.replace(self.targets)

    def expect(self, begin: float, *expected: tuple[str, str], quiet: float) -> dict[tuple[str, str], float]:
        """Wait for these alerts, and for a while; no other may come."""
        end = time.monotonic() + PATIENCE / 2
        while not set(expected) <= self.heard.since(begin).keys() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(quiet)
        found = self.heard.since(begin)
        assert found.keys() == set(expected), found
        return found


@pytest.fixture(scope="module")
def site(serve: Serve, model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("drill")
    home = folder / "home"
    shutil.copytree(model_store / "models" / "digits-cnn", home / "models" / "digits-cnn", symlinks=True)
    [manifest] = home.glob("models/digits-cnn/*/manifest.json")
    old = load(manifest.parent)
    new, slow = successor(old, folder / "new"), slowed(old, folder / "slow")
    BentoMLContainer.model_store.set(ModelStore(home / "models"))
    for bundle in (new, slow, scorer_bundle(folder / "scorer", size=5000)):
        registry.store(bundle)
    BentoMLContainer.model_store.reset()
    with ExitStack() as stack:
        heard, receiver = stack.enter_context(webhook())
        redis = stack.enter_context(start_redis(folder))
        exporter = stack.enter_context(redis_exporter(redis.url, folder))
        settings = {"home": home, "DUET_REDIS_URL": redis.url, "DUET_REDIS_ADMISSION": "always"}
        settings |= {"DUET_CACHE_MEMORY_BYTES": "0", "DUET_REDIS_TIMEOUT_MS": "500"}
        replicas = {"a": old, "b": old, "c": new, "d": slow}
        urls = {
            name: stack.enter_context(
                serve("classification", DUET_MODELS=f"digits-cnn:{bundle.version}", **settings)
            ).url
            for name, bundle in replicas.items()
        }
        urls["scorer"] = stack.enter_context(serve("anomaly", home=home, DUET_DRIFT_SLICE_SECONDS="0.05")).url
        site = Site(heard, folder / "targets.json", urls, redis)
        site.serve("a", "b")
        clients = {name: stack.enter_context(httpx.Client(base_url=url, timeout=60)) for name, url in urls.items()}
        numbers, random = iter(range(10**9)), np.random.default_rng(0)

        def classify() -> None:
            for name in site.serving:  # half of the images are new ones
                picture = (
                    {"images": [PICTURE]}
                    if next(numbers) % 2
                    else {"images": random.integers(0, 255, (1, 28, 28)).tolist()}
                )
                clients[name].post("/classify", json=picture)

        def score() -> None:
            level = np.where(random.random(50) < site.share, random.uniform(205, 250, 50), random.uniform(0, 200, 50))
            pixels = np.floor(level[:, None] + random.random((50, 16)))
            pixels[:, :3] = np.floor(level)[:, None]
            pixels[np.arange(50), random.choice(3, 50, p=SHARES)] += 1
            tensor = {"name": "images", "datatype": "UINT8", "shape": [50, 1, 4, 4]}
            body = {"inputs": [tensor | {"data": pixels.astype(int).ravel().tolist()}]}
            clients["scorer"].post("/v2/models/tiny-scorer/infer", json=body)

        routes = yaml.safe_load(
            faster((ROOT / "deploy/monitoring/alertmanager.yaml").read_text()).replace(
                "http://receiver.example", receiver
            )
        )
        alerts = stack.enter_context(alertmanager(routes, folder))
        loads = [Load(classify), Load(score)]
        for load_ in loads:
            load_.start()
            stack.callback(load_.stop)
        stack.enter_context(
            prometheus(
                {"duet-redis": [exporter]},
                fast_rules(),
                folder,
                alerts=alerts,
                discovered=site.targets,
                data=three_days(folder),
            )
        )
        yield site


def test_the_right_alert_and_no_other_reaches_its_receiver(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, dict[tuple[str, str], float]] = {}
    begin = time.monotonic()
    time.sleep(75)  # more than the hour of the first window
    site.expect(begin, quiet=0)  # nothing is wrong

    begin = time.monotonic()
    site.serve("a", "c")
    told["a replica with another digest"] = site.expect(begin, ("tickets", "DuetDigestSkew"), quiet=5)
    site.serve("a", "b")
    time.sleep(10)

    begin = time.monotonic()
    site.share = 1.0
    told["a stream turns"] = site.expect(begin, ("models", "DuetDrift"), quiet=5)
    site.share = 0.0

    begin = time.monotonic()
    site.serve("d")
    told["a slow model"] = site.expect(begin, ("pager", "DuetLatencyBudgetBurn"), quiet=5)
    site.serve("a", "b")
    time.sleep(75)

    begin = time.monotonic()
    site.redis.process.kill()
    told["Redis is killed"] = site.expect(begin, ("tickets", "DuetRedisBreakerOpen"), quiet=15)
    with capsys.disabled():
        for fault, found in told.items():
            print(f"\n{fault}: {', '.join(f'{name} after {seconds:.1f} s' for (_, name), seconds in found.items())}")
