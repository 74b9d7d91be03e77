"""A drill (`make drill`): real faults of real services under load, and what reaches the people who are told.

Windows and waits of the committed rules are divided by FACTOR, and Prometheus reads every second. Nothing else of the
rules and routes is changed. So a second here is a minute in production, if Prometheus reads every minute there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from rich.table import Table

from loadtests.rollout import candidates
from services.commands.serve import Service
from tests.conftest import PATIENCE, RedisServer, start_redis
from tests.deploy.monitoring import scaled
from tests.deploy.monitoring.receiving import Told, Webhook, webhook
from tests.deploy.monitoring.streams import Stream, classifications, scores
from tests.deploy.monitoring.watching import ROOT, alertmanager, ask, database, point, prometheus, redis_exporter
from tests.slowed import USUAL, Slowness, slowed
from training.data.digits import load_digits
from training.data.idx import read_idx

pytestmark = [pytest.mark.nightly, pytest.mark.server]  # five minutes

FACTOR = 60
QUIET = 70  # seconds: more than the longest window that compares with an earlier one needs
HOLD = 12  # seconds that a fault lasts after the alert: more than the `for` of most others
RULES = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
CONFIGURATION = yaml.safe_load((ROOT / "deploy/monitoring/alertmanager.yaml").read_text())
JOB = "duet-classification"
RATE = 30  # classifications a second
SLOW = 0.4  # seconds of a batch of the slowed model


@dataclass
class Scene:
    """What the drill acts on.

    Attributes:
        replicas: of the classifier that Prometheus reads; the last one is another model.
    """

    folder: Path
    url: str
    webhook: Webhook
    redis: RedisServer
    replicas: list[str]
    streams: tuple[Stream, Stream]
    slowness: Slowness
    turned: threading.Event
    restarted: contextlib.ExitStack

    def point(self, *replicas: int) -> None:
        """Let Prometheus and the load go to these replicas of the classifier."""
        chosen = [self.replicas[number] for number in replicas]
        point({JOB: chosen}, self.folder)
        self.streams[0].hosts = chosen

    def firing(self) -> set[str]:
        return {series["metric"]["alertname"] for series in ask(self.url, 'ALERTS{alertstate="firing"}')}

    def restart_redis(self) -> None:
        self.restarted.enter_context(start_redis(self.folder, self.redis.port))


@dataclass
class Seen:
    """What one fault led to."""

    fault: str
    expected: str
    told: list[Told] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def others(self) -> list[str]:
        return sorted({f"{one.name}/{one.severity}" for one in self.told if one.name != self.expected})

    @property
    def right(self) -> list[Told]:
        return [one for one in self.told if one.name == self.expected]


@pytest.fixture(scope="module")
def data() -> Path:
    """The folder with MNIST and Fashion-MNIST."""
    if not (folder := os.environ.get("DUET_DATA_DIR")):
        pytest.skip("DUET_DATA_DIR is not set; the drill scores MNIST and Fashion-MNIST")
    return Path(folder)


@pytest.fixture(scope="module")
def scene(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("drill")
    models = candidates.make(folder)
    slowness, turned = Slowness(folder), threading.Event()
    digits = load_digits()
    usual, others = (  # shuffled: the first half of the test images of MNIST is cleaner than the second
        np.random.default_rng(0).permutation(read_idx(data / name / "t10k-images-idx3-ubyte.gz"))
        for name in ("mnist", "fashion-mnist")
    )
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        redis = enter(start_redis(folder))
        cached = {"DUET_REDIS_URL": redis.url, "DUET_REDIS_ADMISSION": "always", "DUET_CACHE_MEMORY_BYTES": "0"}
        cached |= {"BENTOML_HOME": str(folder)}
        replicas = []
        for version in ("old", "old", "new"):
            served = {"DUET_MODELS": f"{candidates.NAME}:{models[version].version}", **cached}
            replicas.append(enter(slowed(Service.classification, folder, slowness, **served)))
        scorer = {"DUET_BUNDLES": str(ROOT / "services/reference"), "DUET_MODELS": "mnist-scorer", **cached}
        scorer["DUET_DRIFT_SLICE_SECONDS"] = f"{10 / FACTOR:.4f}"
        anomaly = enter(slowed(Service.anomaly, folder, Slowness(folder, "usual"), **scorer))
        exporter = enter(redis_exporter(redis.url, folder))
        people = enter(webhook())
        manager = enter(alertmanager(scaled.alertmanager(CONFIGURATION, FACTOR, people.url), folder))
        streams = (
            enter(Stream("/classify", RATE, replicas[:2], classifications(digits.test.images))),
            enter(Stream("/score", 20, [anomaly], scores(usual, others, turned))),
        )
        targets = {JOB: replicas[:2], "duet-anomaly": [anomaly], "duet-redis": [exporter]}
        rules, before = scaled.rules(RULES, FACTOR), database(earlier(JOB, RATE), folder)
        url = enter(prometheus(targets, rules, folder, data=before, tells=manager))
        restarted = enter(contextlib.ExitStack())
        yield Scene(folder, url, people, redis, replicas, streams, slowness, turned, restarted)


def earlier(job: str, rate: int) -> list[str]:
    """Samples of three days, divided, in which a service answered in time, as one does that has run for long."""
    now = int(time.time())
    labels = f'job="{job}",instance="before",route="/classify",status="200"'
    begin = now - 3 * 86400 // FACTOR - 60
    lines = ["# TYPE duet_request_duration_seconds histogram"]
    for bound in ("0.25", "+Inf"):
        name = f'duet_request_duration_seconds_bucket{{{labels},le="{bound}"}}'
        lines += [f"{name} {rate * (when - begin)} {when}" for when in range(begin, now - 5, 5)]
    name = f"duet_request_duration_seconds_count{{{labels}}}"
    return lines + [f"{name} {rate * (when - begin)} {when}" for when in range(begin, now - 5, 5)]


def wait_for(state: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def drill(scene: Scene, seen: Seen, begin: Callable[[], object], end: Callable[[], object]) -> Seen:
    """Let a fault happen, wait until its alert is told, let it last, end it, and wait until nothing fires."""
    since = time.time()
    begin()
    wait_for(lambda: any(one.name == seen.expected for one in scene.webhook.firing(since)), seen.fault)
    seen.seconds = next(one.at for one in scene.webhook.firing(since) if one.name == seen.expected) - since
    time.sleep(HOLD)
    end()
    wait_for(lambda: not scene.firing(), f"after {seen.fault}: {scene.firing()}")
    seen.told = scene.webhook.firing(since)
    return seen


def test_each_fault_raises_its_alert_and_no_other(scene: Scene) -> None:
    begun = time.time()
    time.sleep(QUIET)
    assert scene.webhook.firing(begun - PATIENCE) == []
    found = [
        drill(
            scene,
            Seen("Redis is killed", "DuetRedisBreakerOpen"),
            begin=scene.redis.process.kill,
            end=scene.restart_redis,
        ),
        drill(
            scene,
            Seen("a replica has another digest", "DuetDigestSkew"),
            begin=lambda: scene.point(0, 2),
            end=lambda: scene.point(0, 1),
        ),
        drill(
            scene,
            Seen("other images come", "DuetDrift"),
            begin=scene.turned.set,
            end=scene.turned.clear,
        ),
        drill(
            scene,
            Seen("a model is slowed", "DuetLatencyBudgetBurn"),
            begin=lambda: scene.slowness.set(SLOW),
            end=lambda: scene.slowness.set(USUAL),
        ),
    ]
    show(found, scene)
    assert [seen.others for seen in found] == [[]] * len(found)
    receivers = [sorted({(one.severity, one.receiver) for one in seen.right}) for seen in found]
    assert receivers == [[("ticket", "tickets")], [("ticket", "tickets")], [("ticket", "models")], [("page", "pager")]]
    assert {stream.statuses for stream in scene.streams} == {frozenset({200})}  # no fault failed a request


def show(found: list[Seen], scene: Scene) -> None:
    """The tables of docs/results/alerts.md."""
    table = Table("fault", "alert expected", "told to", "seconds", "other alerts")
    for seen in found:
        told = ", ".join(f"{one.severity} to {one.receiver}" for one in seen.right)
        table.add_row(seen.fault, seen.expected, told, f"{seen.seconds:.1f}", ", ".join(seen.others) or "none")
    pods = Table("job", "series", "slowest scrape, ms")
    for series in ask(scene.url, "max by (job) (scrape_samples_scraped)"):
        job = series["metric"]["job"]
        (slowest,) = ask(scene.url, f'max(max_over_time(scrape_duration_seconds{{job="{job}"}}[10m]))')
        pods.add_row(job, series["value"][1], f"{1000 * float(slowest['value'][1]):.1f}")
    console = Console(width=120)
    console.print()
    console.print(table)
    console.print(pods)
