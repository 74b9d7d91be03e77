"""The sums are those of the book, and no bet gains on average while the mean vote is in the band."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.drift.sums import STAKES, Bets, Trail, evidence

KINDS = {"rate": slice(0, 1)}


def by_the_book(votes: list[float], low: float, high: float) -> float:
    """log of the mean Shiryaev-Roberts sum of both sides and all stakes, vote by vote, in logarithms."""
    sums = []
    for stake in STAKES:
        for up in (True, False):
            log_sum = -math.inf
            for x in votes:
                pay = 1 + stake * ((x / high if up else (1 - x) / (1 - low)) - 1)
                log_sum = math.log(pay) + float(np.logaddexp(0, log_sum))
            sums.append(log_sum)
    return float(np.logaddexp.reduce(sums)) - math.log(len(sums))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100), st.floats(0.01, 0.4), st.floats(0.5, 0.99))
@settings(max_examples=50)
def test_the_detector_is_the_sum_of_the_book(votes: list[float], low: float, high: float) -> None:
    bets, trail = Bets(np.array([low]), np.array([high])), Trail(1)
    for vote in votes:
        trail.take(bets.pays(np.array([[vote]])), np.array([[vote]]))
    [found] = evidence(trail.sums, KINDS)["rate"]
    assert math.log(found) == pytest.approx(by_the_book(votes, low, high), rel=1e-9, abs=1e-9)


@given(
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.floats(0.5, 1),
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
)
def test_no_bet_gains_on_average_where_the_mean_vote_is_in_the_band(
    where: float, low: float, high: float, votes: list[float]
) -> None:
    mean = low + where * (high - low)
    drawn = np.array(votes)
    # Any distribution of votes with that mean, here one that moves what it drew towards 0 or 1.
    now = drawn.mean()
    drawn = drawn * mean / now if now > mean else 1 - (1 - drawn) * (1 - mean) / max(1 - now, 1e-300)
    assert drawn.mean() == pytest.approx(mean)
    pays = Bets(np.array([low]), np.array([high])).pays(drawn[:, None])
    assert (pays.mean(axis=0) <= 1 + 1e-9).all()
    assert (pays >= 0).all()


def test_what_a_bet_pays_is_bounded() -> None:
    pays = Bets(np.array([1.0]), np.array([0.0])).pays(np.array([[0.0], [1.0]]))
    assert pays.max() == pytest.approx(1 + 0.6 * 999)


def test_streams_have_sums_and_bands_of_their_own() -> None:
    low, high = np.array([[0.1], [0.2]]), np.array([[0.3], [0.5]])
    votes = np.array([[0.4], [0.6]])
    both = Bets(low, high).pays(votes)
    for row in (0, 1):
        assert (both[row] == Bets(low[row], high[row]).pays(votes[[row]])[0]).all()


def test_the_finding_is_the_mean_vote_since_the_change_began() -> None:
    bets, trail = Bets(np.array([0.1, 0.1]), np.array([0.2, 0.2])), Trail(2)
    for vote in [[0.15, 0.15]] * 50 + [[0.15, 0.7], [0.15, 0.9]] * 5:
        votes = np.array([vote])
        trail.take(bets.pays(votes), votes)
    finding = trail.finding(slice(0, 2))
    assert (finding.event, finding.slices) == (1, 10)
    assert finding.observed == pytest.approx(0.8)
    assert trail.finding(slice(0, 1)).event == 0
    trail.begin_afresh()
    assert trail.sums.sum() == 0
    trail.take(bets.pays(np.array([[0.15, 1.0]])), np.array([[0.15, 1.0]]))
    assert (trail.finding(slice(1, 2)).slices, trail.finding(slice(1, 2)).observed) == (1, 1)
