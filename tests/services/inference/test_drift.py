"""The detector keeps quiet as long as its null holds, and says when it does not."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.inference.drift import ALARM, BLOCK, CEILING, CLASSES, STAKES, Drift, Events

SIZES = (150, 90, 60)
BOTH = {"p_value", "class"}


def normal(random: np.random.Generator, count: int, size: int = 300) -> list[float]:
    """p-values of images like the `size` calibration images: with one calibration set, which does not fit exactly."""
    calibration = np.sort(random.random(size))
    return p_values(calibration, random.random(count))


def p_values(calibration: np.ndarray, scores: np.ndarray) -> list[float]:
    at_least = len(calibration) - calibration.searchsorted(scores)
    return list(((1 + at_least) / (len(calibration) + 1)).astype(np.float32).tolist())


def classes(random: np.random.Generator, count: int, sizes: tuple[int, ...] = SIZES) -> list[int]:
    return list(random.choice(len(sizes), count, p=np.array(sizes) / sum(sizes)).tolist())


def by_the_book(happened: list[bool], low: float, high: float) -> float:
    """log of the mean Shiryaev-Roberts sum of both sides and all stakes, image by image, in logarithms."""
    sums = []
    for stake in STAKES:
        for up in (True, False):
            log_sum = -math.inf
            for x in happened:
                pay = 1 + stake * ((x / high if up else (not x) / (1 - low)) - 1)
                log_sum = math.log(pay) + float(np.logaddexp(0, log_sum))
            sums.append(log_sum)
    return float(np.logaddexp.reduce(sums)) - math.log(len(sums))


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.floats(0.01, 0.4), st.floats(0.5, 0.99))
@settings(max_examples=50)
def test_the_detector_is_the_sum_of_the_book(happened: list[bool], low: float, high: float) -> None:
    events = Events(np.array([[True, False]]), np.array([0.5]), np.array([low]), np.array([high]))
    cells = np.array([0 if x else 1 for x in happened])
    for start in range(0, len(cells), BLOCK):
        events.see(cells[start : start + BLOCK])
    assert math.log(events.evidence) == pytest.approx(by_the_book(happened, low, high), rel=1e-9, abs=1e-9)
    assert events.rates()[0].observed == pytest.approx(np.mean(happened))


@given(st.floats(0, 1), st.floats(0.002, 0.5), st.floats(0.5, 0.998))
def test_no_bet_gains_on_average_where_the_rate_is_in_the_band(where: float, low: float, high: float) -> None:
    rate = low + where * (high - low)
    one = {}
    for cell in (0, 1):
        events = Events(np.array([[True, False]]), np.array([0.5]), np.array([low]), np.array([high]))
        events.see(np.array([cell]))
        one[cell] = events._sums
    assert (rate * one[0] + (1 - rate) * one[1] <= 1 + 1e-12).all()


@pytest.mark.parametrize("size", [20, 300, 5000])
def test_a_stream_that_does_not_change_raises_no_alarm(size: int) -> None:
    random = np.random.default_rng(size)
    sizes = (size // 2, size // 4, size - size // 2 - size // 4)
    drift = Drift("steady", size, sizes)
    for _ in range(100):
        drift.see(normal_from(random, 1000, drift_calibration(size)), classes(random, 1000, sizes))
    assert drift.images == 100_000
    assert drift.alarm_at is None


def drift_calibration(size: int) -> np.ndarray:
    return np.sort(np.random.default_rng(size + 1).random(size))  # one and the same set each time


def normal_from(random: np.random.Generator, count: int, calibration: np.ndarray) -> list[float]:
    return p_values(calibration, random.random(count))


def test_uniform_p_values_of_another_calibration_set_are_tolerated_but_not_those_of_other_images() -> None:
    random = np.random.default_rng(0)
    drift = Drift("turning", 300)
    drift.see(normal(random, 5000))
    assert drift.alarm_at is None
    strange = np.where(random.random(5000) < 0.3, 2.0, random.random(5000))
    drift.see(p_values(drift_calibration(300), strange))
    assert drift.alarm_at is not None
    assert 5000 < drift.alarm_at < 6000


def test_images_that_are_too_normal_are_drift_too() -> None:
    drift = Drift("dull", 300)
    drift.see([0.9] * 2000)
    assert drift.alarm_at is not None


def test_other_classes_are_drift_though_no_image_is_strange() -> None:
    random = np.random.default_rng(1)
    drift = Drift("lopsided", 300, SIZES)
    drift.see(normal(random, 5000), classes(random, 5000))
    assert drift.alarm_at is None
    drift.see(normal(random, 3000), [2] * 3000)
    assert drift.alarm_at is not None
    assert drift.evidence()["class"] > math.log10(ALARM) > drift.evidence()["p_value"]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=10))
@settings(max_examples=30)
def test_the_rates_do_not_depend_on_how_the_stream_is_cut(parts: list[int]) -> None:
    random = np.random.default_rng(2)
    stream, labels = normal(random, sum(parts)), classes(random, sum(parts))
    whole, cut = Drift("whole", 300, SIZES), Drift("cut", 300, SIZES)
    whole.see(stream, labels)
    begin = 0
    for part in parts:
        cut.see(stream[begin : begin + part], labels[begin : begin + part])
        begin += part
        assert cut.images == begin
    assert cut.rates() == whole.rates()
    assert cut.evidence() == pytest.approx(whole.evidence())


def test_an_alarm_stays_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    drift = Drift("changed", 300)
    with caplog.at_level(logging.WARNING, "duet.drift"):
        drift.see([1 / 301] * 200)
        raised = drift.alarm_at
        random = np.random.default_rng(3)
        for _ in range(20):
            drift.see(normal(random, 1000))
    assert raised == BLOCK
    assert drift.alarm_at == raised
    assert drift.evidence()["p_value"] < math.log10(ALARM)
    assert [record.getMessage() for record in caplog.records] == [
        f"drift: after {BLOCK} images since its start, the images sent to changed differ from its calibration images"
    ]


@pytest.mark.parametrize("p_value", [1 / 100_001, 1.0])
def test_the_sums_stay_finite_whatever_comes(p_value: float) -> None:
    drift = Drift("endless", 100_000, (99_999, 1))
    drift.see([p_value] * 20_000, [1] * 20_000)
    assert drift.evidence()["class"] <= math.log10(CEILING)
    assert drift.alarm_at == BLOCK


@pytest.mark.parametrize(("size", "levels"), [(1, [0.5]), (3, [0.5]), (56, [2 / 57, 11 / 57, 28 / 57])])
def test_levels_that_so_few_images_have_no_p_value_for_are_left_out(size: int, levels: list[float]) -> None:
    drift = Drift("small", size)
    drift.see([1.0])
    assert [rate.expected for rate in drift.rates()["p_value"]] == levels


def test_a_class_that_no_calibration_image_is_of_may_turn_up_now_and_then() -> None:
    drift = Drift("new", 300, (300, 0))
    drift.see(normal(np.random.default_rng(4), 1000), [0] * 999 + [1])
    assert drift.alarm_at is None
    rate = drift.rates()["class"][1]
    assert (rate.observed, rate.expected, rate.low) == (0.001, 0, 0)
    assert rate.high > 0.01


@pytest.mark.parametrize(("count", "kinds"), [(0, {"p_value"}), (1, BOTH), (CLASSES, BOTH), (CLASSES + 1, {"p_value"})])
def test_classes_are_watched_up_to_a_number(count: int, kinds: set[str]) -> None:
    drift = Drift("many", 10 * count + 1, [10] * count)
    drift.see([0.5] * 100, [0] * 100)
    assert drift.evidence().keys() == kinds


def test_the_page_of_metrics_shows_it() -> None:
    drift = Drift("shown", 300, SIZES)
    drift.show("1")

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"model": "shown", "version": "1"} | labels)

    assert value("duet_drift_alarm") == value("duet_drift_evidence", kind="class") == 0
    drift.see([1 / 301] * 10, [0] * 10)
    assert value("duet_drift_evidence", kind="p_value") == drift.evidence()["p_value"] > 1
    drift.see([1 / 301] * 100, [0] * 100)
    assert value("duet_drift_alarm") == 1
