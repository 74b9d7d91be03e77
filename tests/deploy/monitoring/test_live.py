"""A real Prometheus reads a real service under a little load: every panel shows something, and so do exemplars."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import PATIENCE, Serve, start_redis
from tests.deploy.monitoring.watching import ROOT, ask, database, prometheus, redis_exporter

pytestmark = [pytest.mark.nightly, pytest.mark.server]  # twenty seconds of two cores

RULES = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/monitoring/dashboards").iterdir())}
PICTURE = base64.b64encode((ROOT / "docs/pictures/digit.png").read_bytes()).decode()


def earlier(folder: Path) -> Path:
    """A database in which the classes of yesterday were recorded two hours ago, as after a day of running."""
    now = int(time.time())
    lines = [
        f'duet:predictions:share1d{{job="duet",model="digits-cnn",label="{label}"}} 0.1 {when}'
        for label in range(10)
        for when in range(now - 7200, now - 1800, 60)
    ]
    return database(["# TYPE duet:predictions:share1d gauge", *lines], folder)


class Load(threading.Thread):
    """Sends one request of each kind after the other, until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._end = threading.Event()
        self.failed = ""

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            for number in itertools.count():
                answers = [
                    client.post("/classify", json={"images": [PICTURE]}, headers={"X-Request-Id": f"seen-{number}"}),
                    client.post("/score", json={"images": [PICTURE]}),
                    client.post("/generate", json={"count": 2, "seed": number % 7}),
                    client.post("/classify", json={"images": [PICTURE]}, headers={"Cache-Control": "no-cache"}),
                ]
                if bad := [answer for answer in answers if not answer.is_success]:
                    self.failed = bad[0].text
                    return
                client.post("/classify", json={"pictures": []})
                if self._end.wait(0.02):
                    return

    def stop(self) -> None:
        self._end.set()
        self.join()
        assert not self.failed


@pytest.fixture(scope="module")
def watched(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that watches the all-in-one under load, Redis, and its exporter."""
    folder = tmp_path_factory.mktemp("watched")
    data = earlier(folder)
    with (
        start_redis(folder) as redis,
        redis_exporter(redis.url, folder) as exporter,
        serve("allinone", DUET_REDIS_URL=redis.url, DUET_REDIS_ADMISSION="always") as server,
    ):
        targets = {"duet": [server.url.removeprefix("http://")], "duet-redis": [exporter]}
        load = Load(server.url)
        load.start()
        try:
            with prometheus(targets, RULES, folder, data=data) as url:
                yield url
        finally:
            load.stop()


def now(query: str) -> str:
    """A query of a panel, with the variables of the dashboard filled in."""
    return query.replace("$__rate_interval", "10s").replace("$namespace", ".*").replace("$job", ".*")


def missing(url: str, name: str) -> list[str]:
    """The queries of a dashboard that have no answer yet."""
    queries = [(panel["title"], target["expr"]) for panel in BOARDS[name]["panels"] for target in panel["targets"]]
    return [f"{title}: {now(query)}" for title, query in queries if not ask(url, now(query))]


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_shows_something(watched: str, name: str) -> None:
    end = time.monotonic() + PATIENCE / 3
    while (left := missing(watched, name)) and time.monotonic() < end:
        time.sleep(1)
    assert left == []


def test_exemplars_name_requests(watched: str) -> None:
    query = {"query": "duet_request_duration_seconds_bucket", "start": time.time() - 600, "end": time.time() + 1}
    end = time.monotonic() + PATIENCE / 3
    found: set[str] = set()
    while not found and time.monotonic() < end:
        answer = httpx.get(f"{watched}/api/v1/query_exemplars", params=query, timeout=30).json()
        found = {one["labels"]["request_id"] for series in answer["data"] for one in series["exemplars"]}
        time.sleep(0.5)
    assert any(name.startswith("seen-") for name in found), found


def test_a_healthy_service_raises_no_alert_and_its_rules_are_sound(watched: str) -> None:
    groups = httpx.get(f"{watched}/api/v1/rules", timeout=30).json()["data"]["groups"]
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    assert ask(watched, 'ALERTS{alertstate="firing"}') == []


def test_the_page_of_a_pod_has_a_bounded_number_of_series(watched: str) -> None:
    (series,) = ask(watched, 'scrape_samples_scraped{job="duet"}')
    (seconds,) = ask(watched, 'max_over_time(scrape_duration_seconds{job="duet"}[1m])')
    print(f"series of a pod: {series['value'][1]}; slowest scrape of a minute: {seconds['value'][1]} s")
    assert float(series["value"][1]) < 10_000
