"""What a request asks for is done, or refused with its name: headers, parameters, seeds, compression."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.server

PLAIN = {"images": [[[0] * 28] * 28], "model": "digits-cnn"}


@pytest.fixture(scope="module")
def client(allinone_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=allinone_url, timeout=60) as client:
        yield client


def infer(client: httpx.Client, model: str, **document: Any) -> httpx.Response:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": [0] * 784}
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor], **document})


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_native_routes_read_compressed_bodies(client: httpx.Client, pack: Any) -> None:
    encoding = {"Content-Encoding": "gzip" if pack is gzip.compress else "deflate"}
    expected = client.post("/classify", json=PLAIN).json()
    headers = {"Content-Type": "application/json", **encoding}
    assert client.post("/classify", content=pack(json.dumps(PLAIN).encode()), headers=headers).json() == expected
    form = client.build_request("POST", "/classify", files={"images": json.dumps(PLAIN["images"])}, data={"model": "x"})
    text = form.read().replace(b'; filename="upload"', b"").replace(b"\r\n\r\nx\r\n", b"\r\n\r\ndigits-cnn\r\n")
    text = re.sub(rb"Content-Type: [^\r]*\r\n", b"", text)
    headers = {"Content-Type": form.headers["Content-Type"], **encoding}
    assert client.post("/classify", content=pack(text), headers=headers).json() == expected


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (json.dumps(PLAIN).encode(), "gzip", 400),
        (b"{}", "br", 415),
        (gzip.compress(bytes(17 * 2**20), mtime=0), "gzip", 413),
    ],
)
def test_a_compression_that_cannot_be_undone_is_named(
    client: httpx.Client, content: bytes, encoding: str, status: int
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert client.post("/classify", content=content, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("model", "document", "field"),
    [
        ("digits-cnn", {"parameters": {"binary_data_output": "true"}}, "parameters.binary_data_output"),
        ("digits-cnn", {"parameters": {"alpha": 0.5}}, "parameters.alpha"),
        ("digits-scorer", {"parameters": {"alhpa": 0.5}}, "parameters.alhpa"),
        (
            "digits-cnn",
            {"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
            "outputs[0].parameters.binary_data",
        ),
        ("digits-cnn", {"outputs": [{"name": "label", "parameters": {"binary": True}}]}, "outputs[0].parameters"),
    ],
)
def test_parameters_that_nobody_reads_are_refused(
    client: httpx.Client, model: str, document: dict[str, Any], field: str
) -> None:
    answer = infer(client, model, **document)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_what_clients_add_by_themselves_is_let_through(client: httpx.Client) -> None:
    added = {"priority": 1, "timeout": 5, "sequence_id": 7, "sequence_start": True, "content_type": "np"}
    assert infer(client, "digits-cnn", parameters=added).status_code == 200


def test_the_class_is_no_parameter_of_a_generator_in_v2(client: httpx.Client) -> None:
    answer = client.post("/v2/models/digits-gan/infer", json={"inputs": [], "parameters": {"class": 7}})
    assert (answer.status_code, answer.json()["field"]) == (422, "parameters.class")


def test_a_fresh_seed_survives_javascript_and_a_large_one_may_be_text(client: httpx.Client) -> None:
    drawn = client.post("/generate", json={"count": 2, "model": "digits-gan"}).json()
    assert drawn["seed"] < 2**53
    again = {"count": 2, "model": "digits-gan", "seed": int(float(drawn["seed"]))}
    assert client.post("/generate", json=again).json() == drawn
    large = 2**63 - 1
    as_number, as_text = (
        client.post("/generate", json={"count": 1, "model": "digits-gan", "seed": seed}).json()["images"]
        for seed in (large, str(large))
    )
    assert as_number == as_text
    v2 = [
        client.post("/v2/models/digits-gan/infer", json={"inputs": [], "parameters": {"seed": seed}}).json()["outputs"]
        for seed in (large, str(large))
    ]
    assert v2[0] == v2[1]
    for refused in ("-1", "1.5", "", "x", str(2**63)):
        answer = client.post("/generate", json={"count": 1, "model": "digits-gan", "seed": refused})
        assert (answer.status_code, answer.json()["field"]) == (422, "seed"), refused


def counts(client: httpx.Client) -> dict[str, float]:
    """What is counted of images that were answered."""
    found: dict[str, float] = {"drift": client.get("/drift").json()["models"][0]["images"]}
    for line in client.get("/metrics").text.splitlines():
        name, _, rest = line.partition("{")
        if name in ("duet_predictions_total", "duet_anomaly_p_value_count", "duet_generated_samples_total"):
            found[name] = found.get(name, 0) + float(rest.rpartition(" ")[2])
    return found


@pytest.mark.parametrize(("purpose", "counted"), [("trial", False), ("Trial", True), ("", True), ("trial, x", True)])
def test_a_trial_is_answered_and_leaves_no_trace(client: httpx.Client, purpose: str, counted: bool) -> None:
    image = np.random.default_rng(len(purpose)).integers(0, 256, (1, 28, 28)).tolist()
    before = counts(client)
    for route, body in (
        ("/classify", {"images": image, "model": "digits-cnn"}),
        ("/score", {"images": image, "model": "digits-scorer"}),
        ("/generate", {"count": 1, "seed": 5, "model": "digits-gan"}),
    ):
        assert client.post(route, json=body, headers={"X-Request-Purpose": purpose}).status_code == 200
    after = counts(client)
    assert {name: after[name] - before.get(name, 0) for name in after} == dict.fromkeys(after, float(counted))


def test_metropolis_hastings_keeps_its_samples_and_none_of_its_proposals(client: httpx.Client) -> None:
    body = {"count": 3, "seed": 99, "model": "digits-gan", "sampler": "metropolis-hastings"}
    first, second = client.post("/generate", json=body), client.post("/generate", json=body)
    assert first.headers["x-cache"] == "miss; hits=0/3"
    assert second.headers["x-cache"] == "hit; hits=3/3"
    assert first.content == second.content
    fewer = client.post("/generate", json=body | {"count": 2})
    assert fewer.headers["x-cache"] == "hit; hits=2/2"
    other = client.post("/generate", json=body | {"truncation": 0.5})
    assert other.headers["x-cache"] == "miss; hits=0/3"
