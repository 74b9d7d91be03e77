"""The test keeps quiet as long as its null holds, says when it does not, and for how long."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.inference.drift.alarms import HELD
from services.inference.drift.detector import ALARM, Drift

SIZES = (150, 90, 60)
NAMES = ("ankle boot", "bag", "coat")


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)  # a server's set-up switches it off


class Stream:
    """Sends images to a test, each slice eight of each client."""

    def __init__(self, size: int = 300, *, tolerated: float = 0.02, sizes: tuple[int, ...] = (), seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.calibration = np.sort(self.random.random(size))
        self.sizes = sizes
        self.drift = Drift("model", size, sizes, NAMES[: len(sizes)], tolerated=tolerated)
        self.marks = itertools.count()
        self.slice = 0

    def send(
        self, share: float, *, images: int = 8, client: bytes | None = None, labels: Sequence[int] | None = None
    ) -> None:
        scores = np.where(self.random.random(images) < share, 2.0, self.random.random(images))
        at_least = len(self.calibration) - self.calibration.searchsorted(scores)
        p_values = ((1 + at_least) / (len(self.calibration) + 1)).astype(np.float32).tolist()
        if labels is None and self.sizes:
            labels = self.random.choice(len(self.sizes), images, p=np.array(self.sizes) / sum(self.sizes)).tolist()
        self.drift.see(p_values, labels, list(itertools.islice(self.marks, images)), 10 * self.slice + 5.0, client)

    def tick(self) -> None:
        self.slice += 1
        self.drift.settle(10.0 * self.slice)

    def go(self, slices: int, share: float, **asked: object) -> None:
        for _ in range(slices):
            self.send(share, **asked)  # type: ignore[arg-type]
            self.tick()


@pytest.mark.parametrize("size", [20, 300, 5000])
@pytest.mark.parametrize("share", [0, 0.02])
def test_a_tolerated_share_raises_no_alarm(size: int, share: float) -> None:
    stream = Stream(size, sizes=(size // 2, size // 4, size - size // 2 - size // 4))
    stream.go(5000, share)
    assert stream.drift.images == 40_000
    assert stream.drift.slices == 5000
    assert not stream.drift.alarms.all


def test_the_same_share_is_an_alarm_if_less_is_tolerated() -> None:
    stream = Stream(5000, tolerated=0)
    stream.go(5000, 0.02)
    assert stream.drift.alarms.all


def test_an_alarm_begins_has_a_cause_goes_on_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(5000)
    with caplog.at_level(logging.WARNING, "duet.drift"):
        stream.go(200, 0.01)
        stream.go(400, 1.0)
        [alarm] = stream.drift.alarms.all
        assert alarm.ended is None
        assert len(caplog.records) == 1
        stream.go(HELD + 10, 0.01)
    assert stream.drift.alarms.active is None
    assert 2000 < alarm.raised <= 2120
    assert alarm.ended is not None
    assert 6000 < alarm.ended <= 6000 + 10 * HELD + 20
    cause = alarm.cause
    assert (cause.kind, cause.event) == ("rate", 0)
    assert cause.observed > 0.5 > 0.05 > cause.allowed[1] > 0.01 > cause.allowed[0]
    assert cause.slices >= 8
    assert [record.getMessage() for record in caplog.records] == [
        "drift: alarm: the images sent to model are no longer like its calibration images: p-values up to 0.01: "
        f"{cause.observed:.2%} observed, {cause.allowed[0]:.2%} to {cause.allowed[1]:.2%} allowed, "
        f"in {cause.slices} slices of 10 s",
        f"drift: the alarm of model that was raised at 1970-01-01T00:{int(alarm.raised) // 60}:"
        f"{int(alarm.raised) % 60:02}Z has ended",
    ]


def test_images_that_are_too_normal_are_drift_too() -> None:
    stream = Stream(300)
    for _ in range(100):
        stream.drift.see([0.9] * 8, None, list(itertools.islice(stream.marks, 8)), 10.0 * stream.slice)
        stream.tick()
    [alarm] = stream.drift.alarms.all
    assert alarm.cause.observed == 0 < alarm.cause.allowed[0]


def test_other_classes_are_drift_though_no_image_is_strange(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(300, sizes=SIZES)
    stream.go(500, 0)
    assert not stream.drift.alarms.all
    stream.go(60, 0, labels=[2] * 8)
    [alarm] = stream.drift.alarms.all
    assert (alarm.cause.kind, alarm.cause.event) == ("class", 4 + 2)
    assert alarm.cause.observed > 0.9
    assert "class coat: " in caplog.text


@pytest.mark.parametrize("images", [7, 200, 10_000])
def test_an_upload_of_anomalies_is_one_vote(images: int) -> None:
    stream = Stream(5000, sizes=(2500, 1250, 1250))
    for number in range(500):
        stream.send(0)
        if number % 100 == 50:
            stream.send(1, images=images)
        stream.tick()
    assert not stream.drift.alarms.all


def test_one_client_of_fifty_is_said_to_be_strange_and_raises_no_alarm() -> None:
    stream = Stream(5000)
    for _ in range(200):
        for client in range(50):
            stream.send(float(client == 7), images=2, client=b"client-%d" % client)
        stream.tick()
    drift = stream.drift
    assert not drift.alarms.all
    assert [client.name for client in drift.strange] == ["client-7"]
    assert [client.name for client in drift.streams] == [f"client-{i}" for i in range(50)] + ["*"]


def test_five_of_fifty_raise_one_that_names_them() -> None:
    stream = Stream(5000)
    while not stream.drift.alarms.all:
        for client in range(50):
            stream.send(float(client % 10 == 7), images=4, client=b"client-%d" % client)
        stream.tick()
    assert stream.slice <= 40
    assert set(stream.drift.alarms.all[0].clients) == {f"client-{i}" for i in (7, 17, 27, 37, 47)}


def test_a_change_of_all_clients_names_none_of_them() -> None:
    stream = Stream(5000)
    while not stream.drift.alarms.all:
        for client in range(20):
            stream.send(0.1, images=2, client=b"client-%d" % client)
        stream.tick()
    assert stream.drift.alarms.all[0].clients == []


def test_a_client_that_turns_normal_is_no_longer_said_to_be_strange() -> None:
    stream = Stream(5000)
    for number in range(20 + HELD + 20):
        stream.send(float(number < 20), client=b"a")
        stream.send(0, client=b"b")
        stream.tick()
        if number == 19:
            assert [client.name for client in stream.drift.strange] == ["a"]
    assert stream.drift.strange == []


def test_repeats_do_not_vote_and_are_counted() -> None:
    drift = Drift("model", 300)
    for number in range(300):
        drift.see([1 / 301], None, [7], 10.0 * number)
    drift.settle(3000.0)
    assert (drift.images, drift.slices) == (300, 1)
    assert not drift.alarms.all
    assert drift.repeats == 1  # of the last 128 slices
    drift.see([0.5] * 128, None, range(100, 228), 3000.0)
    assert drift.repeats == 0.5


def test_what_one_client_sent_is_no_repeat_of_another() -> None:
    drift = Drift("model", 300)
    for client in (b"a", b"b", None):
        drift.see([0.5], None, [7], 1.0, client)
    drift.settle(11.0)
    assert drift.repeats == 0


def test_slices_without_images_are_none() -> None:
    stream = Stream(5000)
    stream.go(100, 1.0)
    [alarm] = stream.drift.alarms.all
    stream.slice += 10_000  # a night
    stream.drift.settle(10.0 * stream.slice)
    assert stream.drift.slices == 100
    assert stream.drift.alarms.active is alarm


def test_a_slice_ends_with_its_time_and_not_before() -> None:
    drift = Drift("model", 300, slice_seconds=2.5)
    drift.see([0.5], None, [1], 1000.1)
    drift.see([0.5], None, [2], 1002.4)
    drift.settle(1002.49)
    assert drift.slices == 0
    drift.settle(1002.5)
    assert drift.slices == 1
    drift.see([0.5], None, [3], 1003.0)
    drift.see([0.5], None, [4], 900.0)  # a clock that was set back
    drift.see([0.5], None, [5], 902.4)
    drift.settle(902.5)
    assert drift.slices == 3


@given(st.lists(st.integers(1, 60), min_size=1, max_size=10))
@settings(max_examples=30)
def test_the_evidence_does_not_depend_on_how_requests_cut_the_stream(parts: list[int]) -> None:
    random = np.random.default_rng(2)
    count = sum(parts)
    p_values, labels = random.random(count).tolist(), random.integers(0, 3, count).tolist()
    whole, cut = Drift("whole", 300, SIZES, NAMES), Drift("cut", 300, SIZES, NAMES)
    whole.see(p_values, labels, range(count), 1.0)
    for begin, end in itertools.pairwise([0, *itertools.accumulate(parts)]):
        cut.see(p_values[begin:end], labels[begin:end], range(begin, end), 2.0)
    for drift in (whole, cut):
        drift.settle(10.0)
    assert cut.rates() == whole.rates()
    assert cut.evidence() == whole.evidence()


@pytest.mark.parametrize("p_value", [1 / 100_001, 1.0])
def test_evidence_stays_finite_whatever_comes(p_value: float) -> None:
    drift = Drift("endless", 100_000, (99_999, 1), ("a", "b"), tolerated=0)
    for number in range(2000):
        drift.see([p_value], [1], [number], 10.0 * number, b"a")
    drift.settle(20_000.0)
    assert all(math.isfinite(value) for value in drift.evidence().values())
    assert drift.alarms.active
    assert len(drift.alarms.all) == 1


def test_the_page_of_metrics_shows_it() -> None:
    stream, now = Stream(300, sizes=SIZES), [0.0]
    drift = stream.drift
    drift.show("1", lambda: now[0])

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"model": "model", "version": "1"} | labels)

    assert value("duet_drift_alarm") == value("duet_drift_evidence", kind="class") == 0
    drift.see([1 / 301] * 4, [0] * 4, [1, 2, 3, 1], 0.0)
    assert value("duet_drift_repeats") == 0.25
    assert value("duet_drift_evidence", kind="rate") == 0
    now[0] = 10.0  # the slice ends when the page is read
    assert value("duet_drift_evidence", kind="rate") == drift.evidence()["rate"] > 0
    for number in range(1, 20):
        drift.see([1 / 301], [0], [100 + number], 10.0 * number)
    now[0] = 200.0
    assert value("duet_drift_alarm") == 1
    assert max(drift.evidence().values()) < math.log10(ALARM)
