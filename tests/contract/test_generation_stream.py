"""Samples in lines of JSON: those of a whole answer, in bounded memory, and an end that is said however it comes."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from services.inference.noise import latents
from tests.conftest import PATIENCE, Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

GAN, VAE = "digits-gan", "digits-vae"
MANY = 2**16  # as many as a stream may have: some seconds' work
COUNT = 70  # more than one part


def ask(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return client.post("/generate", json={"model": GAN, "seed": 3} | fields, headers=headers)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Of all series that have these labels the sum."""
    series = re.compile(rf"^{name}\{{(.*)\}} (\S+)$", re.MULTILINE)
    found = series.findall(client.get("/metrics").text)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for given, value in found if all(label in given for label in wanted))


def wait(happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": VAE},
        {"format": "array"},
        {"class": "7", "truncation": 0.5},
        {"quality": True},
        {"min_quality": 0.9},
        {"sampler": "metropolis-hastings"},
        {"sampler": "metropolis-hastings", "quality": True},
        {"count": 1},
        {"count": 64},
    ],
    ids=str,
)
def test_lines_are_the_samples_of_a_whole_answer(client: httpx.Client, fields: dict[str, Any]) -> None:
    whole = ask(client, **{"count": COUNT} | fields).json()
    first, *samples, last = lines(ask(client, stream=True, **{"count": COUNT} | fields))
    count = len(whole["images"])
    assert first == {"model": whole["model"], "seed": 3, "count": count}
    assert last == {"drawn": count}
    assert [sample["index"] for sample in samples] == list(range(count))
    for name, listed in (("image", "images"), ("label", "labels")):
        assert [sample[name] for sample in samples if name in sample] == whole.get(listed, [])
    told = [sample["quality"] for sample in samples if "quality" in sample]
    assert len(told) == len(whole.get("quality", []))
    for one, other in zip(told, whole.get("quality", []), strict=True):
        # A classifier's last digit depends on how many images it sees at once.
        assert one == other | {"probability": pytest.approx(other["probability"], abs=1e-5)}


def test_latents_are_drawn_in_lines_too(client: httpx.Client) -> None:
    noise = latents(3, range(COUNT), 32).tolist()
    given = {"model": GAN, "latents": noise, "stream": True}
    first, *samples, _ = lines(client.post("/generate", json=given))
    assert first == {"model": first["model"], "count": COUNT}
    assert [sample["image"] for sample in samples] == ask(client, count=COUNT).json()["images"]


def test_a_client_of_http_1_0_gets_lines_without_chunks(client: httpx.Client) -> None:
    body = json.dumps({"model": GAN, "count": 70, "seed": 7, "stream": True}).encode()
    head = f"POST /generate HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), PATIENCE) as connection:
        connection.sendall(head + body)
        came = b"".join(iter(lambda: connection.recv(2**16), b""))
    about, _, content = came.partition(b"\r\n\r\n")
    assert about.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in about.lower()
    assert b"connection: close" in about.lower()
    found = [json.loads(line) for line in content.splitlines()]
    assert found == lines(client.post("/generate", content=body))
    assert found[-1] == {"drawn": 70}


def test_a_fresh_seed_is_told(client: httpx.Client) -> None:
    first, *samples, _ = lines(client.post("/generate", json={"model": GAN, "count": 2, "stream": True}))
    again = ask(client, seed=first["seed"], count=2).json()
    assert [sample["image"] for sample in samples] == again["images"]


def test_a_form_asks_for_lines_too(client: httpx.Client) -> None:
    response = client.post("/generate", files={"count": (None, "3"), "stream": (None, "true")})
    assert lines(response)[-1] == {"drawn": 3}


@pytest.mark.parametrize(
    ("status", "field", "fields"),
    [
        (422, "format", {"format": "grid"}),
        (422, "stream", {"stream": "yes"}),
        (422, "stream", {"stream": None}),
        (422, "count", {"count": 0}),
        (413, "count", {"count": MANY + 1}),
        (413, "count", {"count": 10**9}),
        (413, "latents", {"seed": None, "latents": [[0.0]] * (MANY + 1)}),
        (422, "class", {"class": "cat"}),
        (422, "sampler", {"sampler": "metropolis-hastings", "model": VAE}),
        (404, "model", {"model": "nobody"}),
    ],
    ids=str,
)
def test_what_is_wrong_from_the_start_is_a_status(
    client: httpx.Client, status: int, field: str, fields: dict[str, Any]
) -> None:
    given = {"model": GAN, "seed": 3, "stream": True} | fields
    response = client.post("/generate", json={name: value for name, value in given.items() if name != "seed" or value})
    assert (response.status_code, response.json().get("field")) == (status, field), response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"


def test_the_page_says_what_the_lines_are(client: httpx.Client) -> None:
    page = json.dumps(client.get("/docs.json").json())
    assert "application/x-ndjson" in page
    assert "the number of samples, or a problem" in page


def test_streams_leave_the_cache_to_others(client: httpx.Client) -> None:
    response = ask(client, stream=True, count=3, seed=987654321)
    assert response.headers["x-cache"] == "bypass"
    assert ask(client, count=3, seed=987654321).headers["x-cache"] == "miss; hits=0/3"


def test_a_deadline_on_the_way_is_the_last_line(client: httpx.Client) -> None:
    names = ("duet_abandoned_items_total", "duet_wasted_items_total")
    before = {name: metric(client, name, model=GAN, reason="deadline") for name in names}

    def lost(name: str) -> float:
        return metric(client, name, model=GAN, reason="deadline") - before[name]

    headers = {"X-Request-Timeout-Ms": "500"}
    first, *samples, last = lines(ask(client, headers, stream=True, count=MANY))
    assert first["count"] == MANY
    assert 0 < len(samples) < MANY
    assert [sample["index"] for sample in samples] == list(range(len(samples)))
    assert (last["status"], last["field"]) == (504, "X-Request-Timeout-Ms")
    assert last["error"] == last["detail"]
    assert last["type"] == "urn:duet:problem:deadline-exceeded"

    def counted() -> float:
        return len(samples) + lost("duet_abandoned_items_total") + lost("duet_wasted_items_total")

    wait(lambda: counted() == MANY, "some were neither sent nor left undone")
    assert lost("duet_wasted_items_total") <= 64  # the part that was being drawn
    assert metric(client, "duet_stage_duration_seconds_count", route="/generate", stage="compute") > 0


@pytest.fixture(scope="module", params=["true", "false"], ids=["lane", "BentoML's layers"])
def own(serve: Any, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A server that only the tests of this module ask, one after the other, with time enough."""
    settings = {"DUET_FAST_LANE": request.param, "DUET_REQUEST_TIMEOUT_MS": "120000"}
    with serve("generation", **settings) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def drawn(client: httpx.Client) -> float:
    return metric(client, "duet_generated_samples_total")


def left(client: httpx.Client) -> float:
    return metric(client, "duet_abandoned_items_total", reason="caller-left")


def wasted(client: httpx.Client) -> float:
    return metric(client, "duet_wasted_items_total", reason="caller-left")


def test_whoever_hangs_up_is_drawn_for_no_longer(own: httpx.Client) -> None:
    body = {"model": GAN, "count": MANY, "stream": True}
    before = drawn(own), left(own), wasted(own)
    with own.stream("POST", "/generate", json=body) as response:
        assert json.loads(next(response.iter_lines()))["count"] == MANY
        assert drawn(own) - before[0] < MANY  # the first line came before the last sample was drawn
    wait(lambda: left(own) > before[1], "nothing was left undone")
    in_all = sum(before) + MANY
    wait(lambda: drawn(own) + left(own) + wasted(own) == in_all, "some were neither drawn nor left undone")
    assert wasted(own) - before[2] <= 64  # the part that was being drawn
    assert metric(own, "duet_requests_in_flight", route="/generate") == 0


def test_a_stream_that_has_begun_waits_for_room(serve: Any) -> None:
    """The queue holds one part, so that of several streams all but two find it full."""
    settings = {"DUET_QUEUE_ITEMS": "64", "DUET_REQUEST_TIMEOUT_MS": "120000"}
    with serve("generation", **settings) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:

        def last_line(number: int) -> Any:
            while (answer := ask(client, seed=number, count=1000, stream=True)).status_code == 429:
                time.sleep(0.01)  # it had not begun
            return lines(answer)[-1]

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(last_line, range(6))) == [{"drawn": 1000}] * 6


@contextlib.contextmanager
def mute(client: httpx.Client, *headers: str) -> Iterator[socket.socket]:
    """Asks for many samples, as long as they can be, and reads none."""
    content = json.dumps({"model": VAE, "count": MANY, "stream": True, "format": "array"})
    head = ["POST /generate HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *headers, "", content]
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect((client.base_url.host, client.base_url.port))
        caller.sendall("\r\n".join(head).encode())
        yield caller


def test_nothing_is_drawn_ahead_of_a_client_that_does_not_read(own: httpx.Client) -> None:
    drawn_before, left_before = drawn(own), left(own)
    with mute(own) as caller:
        seen = [-1.0] * 8

        def rests() -> bool:
            seen.append(drawn(own) - drawn_before)
            return seen[-1] > 0 and len(set(seen[-8:])) == 1

        wait(rests, "it never rested")
        assert drawn(own) - drawn_before < MANY / 2
        caller.recv(2**20)
        assert metric(own, "duet_requests_in_flight", route="/generate") == 1
    wait(lambda: left(own) > left_before, "nothing was left undone")


def test_a_client_that_does_not_read_is_let_go_at_its_deadline(serve: Any) -> None:
    with serve("generation") as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        with mute(client, "X-Request-Timeout-Ms: 4000"):
            wait(lambda: drawn(client) > 0, "it never began")
            wait(lambda: metric(client, "duet_requests_in_flight", route="/generate") == 0, "it is still waited for")
        assert "did not read" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def peak(server: Server) -> int:
    """Bytes of memory that the worker ever held: of BentoML's processes, the largest."""
    parent = psutil.Process(server.process.pid)
    worker = max([parent, *parent.children(recursive=True)], key=lambda process: process.memory_info().rss)
    [line] = [line for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if "VmHWM" in line]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are read from Linux's /proc")
def test_twenty_thousand_take_no_more_memory_than_a_few(serve: Any) -> None:
    settings = {"DUET_REQUEST_ITEMS": "20000", "DUET_REQUEST_TIMEOUT_MS": "120000"}
    with serve("generation", **settings) as server, httpx.Client(base_url=server.url, timeout=2 * PATIENCE) as client:

        def grown(**fields: Any) -> float:
            """MB, by one answer, which is thrown away as it comes."""
            before = peak(server)
            body = {"model": VAE, "seed": 3, "format": "array"} | fields
            with client.stream("POST", "/generate", json=body, headers={"Cache-Control": "no-store"}) as response:
                assert response.status_code == 200
                assert sum(map(len, response.iter_bytes())) > 1000 * fields["count"]
            return (peak(server) - before) / 2**20

        grown(count=256)
        grown(count=256, stream=True)
        assert grown(count=20000, stream=True) < 4
        assert grown(count=20000) > 40  # what this test would see
