"""Counts from real pages, and pages that cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from deploy.rollout import evidence, pictures
from deploy.rollout.evidence import ROUTES, EvidenceError
from services.protocol.services import PROTOCOLS, routes_of
from services.protocol.v2.routes import INFER
from tests.conftest import ROOT, Serve, free_port

MODEL = "digits-cnn"


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    with serve("classification") as server:
        yield server.url


def version(url: str) -> str:
    [model] = [one for one in httpx.get(f"{url}/models").json()["models"] if one["name"] == MODEL]
    return str(model["version"])


def test_the_routes_are_those_that_models_answer() -> None:
    assert set(ROUTES) == {*routes_of(list(PROTOCOLS)), INFER}


@pytest.mark.server
@pytest.mark.slow
def test_what_was_answered_between_two_samples_is_counted(url: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28)).tolist()
    before = evidence.sample([url])
    labels = [
        one["label"]
        for image in images
        for one in httpx.post(f"{url}/classify", json={"images": image, "model": MODEL}).json()["predictions"]
    ]
    assert httpx.post(f"{url}/classify", json={"images": "no"}).status_code == 422
    httpx.get(f"{url}/livez")
    pages = [evidence._difference(url, *pair) for pair in zip(before, evidence.sample([url]), strict=True)]
    counts = evidence.counts(pages, f"{MODEL}:{version(url)}")
    assert (counts.requests, counts.errors, counts.images) == (4, 0, 3)
    assert counts.within[math.inf] == 4
    assert {label: count for label, count in counts.classes.items() if count} == {
        label: labels.count(label) for label in set(labels)
    }
    other = evidence.counts(pages, f"{MODEL}:0")
    assert (other.requests, sum(other.classes.values())) == (4, 0)


@pytest.mark.server
@pytest.mark.slow
def test_every_pod_must_serve_both_versions(url: str) -> None:
    tag = f"{MODEL}:{version(url)}"
    evidence.check_served([[url], [url]], [tag])
    with pytest.raises(
        EvidenceError, match=rf"{url}: it does not serve {MODEL}:0 but .*{tag}.*add it to its DUET_MODE"
    ):
        evidence.check_served([[url]], [tag, f"{MODEL}:0"])


@pytest.mark.server
@pytest.mark.slow
def test_pictures_are_asked_for_without_being_counted(url: str, tmp_path: Path) -> None:
    tag = f"{MODEL}:{version(url)}"
    before = evidence.counts(evidence.sample([url]), tag)
    changed = pictures.changed(url, ROOT / "docs" / "pictures", (tag, tag))
    assert changed.hits == 0
    assert changed.of > 3
    assert evidence.counts(evidence.sample([url]), tag).classes == before.classes
    with pytest.raises(EvidenceError, match="no PNG or JPEG file is there"):
        pictures.changed(url, tmp_path, (tag, tag))
    with pytest.raises(EvidenceError, match=f"{MODEL}:0 at {url} answers 404"):
        pictures.changed(url, ROOT / "docs" / "pictures", (tag, f"{MODEL}:0"))


def test_a_pod_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EvidenceError, match=f"{url}/metrics: .*give the address of a pod"):
        evidence.sample([url])
    with pytest.raises(EvidenceError, match="unknown url type"):
        evidence.sample(["localhost"])


def test_a_pod_that_began_anew_cannot_be_compared() -> None:
    series = (evidence.PREDICTIONS, frozenset({("label", "7")}))
    assert evidence._difference("x", {}, {series: 4.0}) == {series: 4.0}
    for after in ({series: 3.0}, {}):
        with pytest.raises(EvidenceError, match="started again between the two samples"):
            evidence._difference("x", {series: 4.0}, after)
