"""The guard measures every request once, by labels that callers cannot multiply."""

from __future__ import annotations

from tests.services.protocol.gateway.asgi import Client
from tests.services.protocol.gateway.samples import samples, total


async def test_metrics_are_prometheus_text(client: Client) -> None:
    answer = await client.ask("/metrics", "GET")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"duet_requests_in_flight" in answer.body


async def test_openmetrics_has_the_request_behind_a_bucket(client: Client) -> None:
    await client.ask(headers={"X-Request-Id": "slow-one"})
    answer = await client.ask("/metrics", "GET", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert b'request_id="slow-one"' in answer.body
    assert answer.body.endswith(b"# EOF\n")


async def test_metric_labels_do_not_grow_with_what_callers_send(client: Client) -> None:
    await client.ask("/nowhere")
    await client.ask("/static_content/a.js", "GET")
    before = len(list(samples("duet_request_duration_seconds_count")))
    unknown = total("duet_request_duration_seconds_count", route="unknown", status="404")
    for i in range(50):
        await client.ask(f"/nowhere/{i}", headers={"X-Request-Id": f"id-{i}", "User-Agent": f"agent {i}"})
        await client.ask(f"/static_content/{i}.js", "GET")
    assert len(list(samples("duet_request_duration_seconds_count"))) == before
    assert total("duet_request_duration_seconds_count", route="unknown", status="404") == unknown + 50


async def test_a_request_is_measured_once_by_route_and_status(client: Client) -> None:
    labels = {"route": "/echo", "status": "200"}
    before = total("duet_request_duration_seconds_count", **labels)
    await client.ask()
    assert total("duet_request_duration_seconds_count", **labels) == before + 1
    assert total("duet_requests_in_flight", route="/echo") == 0


async def test_a_refusal_counts_as_one_rejection(client: Client) -> None:
    before = total("duet_rejections_total", route="/echo", reason="too-large")
    await client.ask(headers={"Content-Length": "99999"})
    assert total("duet_rejections_total", route="/echo", reason="too-large") == before + 1
