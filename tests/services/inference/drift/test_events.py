"""Bands of rates: what they are without tolerance, and that tolerated anomalies stay in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.beta import beta_quantile
from services.inference.drift.events import CLASSES, MISSED, Events


def test_the_bands_are_those_of_the_beta_distribution() -> None:
    events = Events(300, (150, 90, 60), 0)
    assert events.kinds == {"rate": slice(0, 4), "class": slice(4, 7)}
    assert events.expected == pytest.approx([3 / 301, 15 / 301, 60 / 301, 150 / 301, 0.5, 0.3, 0.2])
    assert events.low[0] == beta_quantile(MISSED / 8, 3, 298)
    assert events.high[0] == beta_quantile(1 - MISSED / 8, 3, 298)
    assert events.low[4] == beta_quantile(MISSED / 6, 150, 151)
    assert events.high[6] == beta_quantile(1 - MISSED / 6, 61, 240)


def test_a_tolerated_share_widens_them() -> None:
    plain, tolerant = Events(300, (150, 90, 60), 0), Events(300, (150, 90, 60), 0.1)
    assert tolerant.low == pytest.approx(0.9 * plain.low)
    assert tolerant.high == pytest.approx(0.9 * plain.high + 0.1)


@given(st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_tolerated_share_stays_inside_whatever_it_looks_like(
    tolerated: float, share: float, where: float, strange: float
) -> None:
    plain, events = Events(272, (), 0), Events(272, (), tolerated)
    rates = plain.low + where * (plain.high - plain.low)
    mixed = (1 - share * tolerated) * rates + share * tolerated * strange
    assert (events.low - 1e-12 <= mixed).all()
    assert (mixed <= events.high + 1e-12).all()


@pytest.mark.parametrize(("size", "levels"), [(1, [0.5]), (3, [0.5]), (56, [2 / 57, 11 / 57, 28 / 57])])
def test_levels_that_so_few_images_have_no_p_value_for_are_left_out(size: int, levels: list[float]) -> None:
    assert Events(size, (), 0.02).expected.tolist() == levels


def test_a_class_that_no_calibration_image_is_of_may_turn_up_now_and_then() -> None:
    events = Events(300, (300, 0), 0)
    assert (events.expected[-1], events.low[-1]) == (0, 0)
    assert 0.01 < events.high[-1] < 0.05
    assert events.high[-2] == 1


@pytest.mark.parametrize(("count", "width"), [(0, 5), (1, 6), (CLASSES, 5 + CLASSES), (CLASSES + 1, 5)])
def test_classes_are_watched_up_to_a_number(count: int, width: int) -> None:
    events = Events(10 * count + 300, [10] * count, 0.02)
    assert events.width == width
    assert ("class" in events.kinds) == (width > 5)


def test_counts_become_shares_of_p_values_up_to_each_level_and_of_classes() -> None:
    events = Events(300, (200, 100), 0)
    counts = np.array([[1, 2, 3, 0, 4, 7, 3], [0, 0, 0, 0, 2, 0, 2]])
    assert events.shares(counts).tolist() == [[0.1, 0.3, 0.6, 0.6, 0.7, 0.3], [0, 0, 0, 0, 0, 1]]
