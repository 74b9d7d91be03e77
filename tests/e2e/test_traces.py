"""Traces of a real service at a real collector: requests, their stages, batches, Redis."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from services.inference.registry import REFERENCE
from tests.collector import Collector, Span, collecting
from tests.conftest import PATIENCE, ROOT, Server, clean_environment, free_port, start_redis, wait_until_answers

pytestmark = [pytest.mark.slow, pytest.mark.server]

PATH = "/v2/models/mnist-cnn/infer"
STAGES = {"parse", "queue", "compute", "encode"}


@dataclass
class Traced:
    """A service that sends its traces to a collector."""

    server: Server
    collector: Collector
    redis: int

    def ask(self, body: bytes, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.server.url}{PATH}", content=body, headers=headers, timeout=PATIENCE)


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "training", "serve", "classification", "--port", str(port)]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder, port = tmp_path_factory.mktemp("traced"), free_port()
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        redis = stack.enter_context(start_redis(folder))
        environment = clean_environment(
            BENTOML_HOME=str(folder),
            DUET_BUNDLES=str(REFERENCE / "mnist-cnn"),
            DUET_DEFAULT_MODELS="",
            DUET_REDIS_URL=redis.url,
            DUET_REDIS_ADMISSION="always",
            DUET_LOG_FORMAT="json",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_TRACES_SAMPLER_ARG="1",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_SDK_DISABLED="true",
        )
        log = folder / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command(port), env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_answers(server, ready=True)
            yield Traced(server, collector, redis.port)
        finally:
            if process.poll() is None:
                server.stop()
        for line in log.read_text().splitlines():
            json.loads(line)


def image(level: int) -> bytes:
    tensor = {"name": "images", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [level] * 784}
    return json.dumps({"inputs": [tensor]}).encode()


def parent(trace: str, flags: str = "01") -> str:
    return f"00-{trace}-00f067aa0ba902b7-{flags}"


def own(spans: list[Span]) -> Span:
    [span] = [span for span in spans if span.kind == "server"]
    return span


def test_four_requests_in_one_batch(traced: Traced) -> None:
    """The worker is held while five requests come: the first is computed alone, and four wait for each other."""
    [worker] = psutil.Process(traced.server.process.pid).children(recursive=True)
    traces = [secrets.token_hex(16) for _ in range(5)]
    with ExitStack() as stack:
        address = ("127.0.0.1", int(traced.server.url.rpartition(":")[2]))
        clients = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in traces]
        for client in clients:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"alive\n"):
                answer += client.recv(4096)
        worker.send_signal(signal.SIGSTOP)
        try:
            for number, (client, trace) in enumerate(zip(clients, traces, strict=True)):
                body = image(number)
                head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTraceparent: {parent(trace)}\r\nCache-Control: no-store\r\n"
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        finally:
            worker.send_signal(signal.SIGCONT)
        for client in clients:
            assert b"200 OK" in client.recv(65536)
    found = {trace: traced.collector.trace(trace) for trace in traces}
    servers = {(own(spans).trace, own(spans).id) for spans in found.values()}
    batches = [span for span in traced.collector.spans if span.name == "batch" and span.links & servers]
    shared = max(batches, key=lambda span: len(span.links))
    assert len(shared.links) == 4
    assert shared.links < servers
    assert {link for span in batches for link in span.links} == servers
    assert shared.attributes["duet.batch.requests"] == shared.attributes["duet.batch.items"] == len(shared.links)
    assert len({trace for trace, _ in shared.links}) == len(shared.links), "each request has its own trace"
    digest = json.loads((REFERENCE / "mnist-cnn" / "manifest.json").read_text())["digest"]
    for trace, _ in shared.links:
        server = own(found[trace])
        assert server.parent == "00f067aa0ba902b7"
        stages = {span.name: span for span in found[trace] if span.parent == server.id}
        assert set(stages) == STAGES
        assert all(server.begin <= span.begin <= span.end <= server.end for span in stages.values())
        assert stages["compute"].links == {(shared.trace, shared.id)}
        assert (stages["compute"].begin, stages["compute"].end) == pytest.approx((shared.begin, shared.end), abs=1e6)
        assert server.attributes["duet.model.digest"] == stages["compute"].attributes["duet.model.digest"] == digest
    assert shared.attributes["duet.model.digest"] == digest


def test_a_malformed_context_begins_a_new_trace(traced: Traced) -> None:
    mine = secrets.token_hex(16)
    answer = traced.ask(image(0), Traceparent=parent(mine).upper(), **{"X-Request-Id": f"malformed-{mine}"})
    assert answer.status_code == 200
    spans = traced.collector.wait_for(
        lambda spans: any(span.attributes.get("duet.request.id") == f"malformed-{mine}" for span in spans)
    )
    [server] = [span for span in spans if span.attributes.get("duet.request.id") == f"malformed-{mine}"]
    assert server.parent == ""
    assert server.trace != mine


def test_the_decision_of_the_caller_holds(traced: Traced) -> None:
    not_traced, after = secrets.token_hex(16), secrets.token_hex(16)
    assert traced.ask(image(0), Traceparent=parent(not_traced, "00")).status_code == 200
    assert httpx.get(f"{traced.server.url}/readyz").status_code == 200
    assert traced.ask(image(0), Traceparent=parent(after), Tracestate="vendor=mine").status_code == 200
    server = own(traced.collector.trace(after))
    assert (server.parent, server.state) == ("00f067aa0ba902b7", "vendor=mine")
    assert not any(span.trace == not_traced for span in traced.collector.spans)
    assert not any(span.attributes.get("url.path") == "/readyz" for span in traced.collector.spans), "probes are not"


def test_a_read_of_redis_is_within_the_stage_that_asked(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    assert traced.ask(image(77), Traceparent=parent(trace)).headers["x-cache"].startswith("miss")
    spans = traced.collector.trace(trace)
    stages = {span.id for span in spans if span.name == "cache"}
    [command] = [span for span in spans if span.name == "MGET"]
    assert command.kind == "client"
    assert command.parent in stages
    assert command.attributes["server.port"] == traced.redis
    assert command.attributes["db.system.name"] == "redis"


def test_a_refusal_is_in_its_trace(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    answer = httpx.post(f"{traced.server.url}/nowhere", headers={"Traceparent": parent(trace)})
    assert answer.status_code == 404
    server = own(traced.collector.trace(trace))
    assert server.name == "POST"
    assert (server.attributes["duet.problem"], server.failed) == ("unknown-route", False)


def test_exemplars_and_counts_are_on_the_page(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    traced.ask(image(1), Traceparent=parent(trace))
    traced.collector.trace(trace)
    headers = {"Accept": "application/openmetrics-text"}
    page = httpx.get(f"{traced.server.url}/metrics", headers=headers).text
    assert f'trace_id="{trace}"' in page
    [exported] = [line for line in page.splitlines() if line.startswith('duet_spans_total{outcome="exported"}')]
    assert float(exported.rpartition(" ")[2]) > 0


def test_a_wrong_variable_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    environment = clean_environment(BENTOML_HOME=str(tmp_path), **variables)
    run = subprocess.run(command(free_port()), env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not one of http/protobuf" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
