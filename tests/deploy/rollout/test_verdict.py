"""The risk and the power of the comparison, by simulation, and what a refusal says."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from deploy.rollout import verdict
from deploy.rollout.evidence import Counts
from deploy.rollout.verdict import Check, Share, difference, wilson

TRIALS = 4000
BOUNDS = (0.001, 0.005, 0.01, math.inf)
MIX = (0.4, 0.3, 0.2, 0.1)


def draw(
    random: np.random.Generator,
    requests: int,
    *,
    errors: float = 0.001,
    slow: float = 0.01,
    mix: tuple[float, ...] = MIX,
) -> Counts:
    """What pods count that answer so: `slow` is the share of answers beyond 5 ms, all of them within 10 ms."""
    failed = int(random.binomial(requests, errors))
    good = requests - failed
    late = int(random.binomial(good, slow))
    classes = random.multinomial(good, mix)
    within = dict(zip(BOUNDS, (good // 2, good - late, good, good), strict=True))
    return Counts(requests, failed, within, dict(zip("abcd", classes.tolist(), strict=True)), {}, good)


def is_promoted(stable: Counts, canary: Counts) -> bool:
    return not verdict.refusals(verdict.checks(stable, canary))


def needed(ratio: float) -> int:
    """Requests that the rarer of two equal ones needs, where the stable one has `ratio` times as many."""
    random = np.random.default_rng(0)
    found = verdict.checks(draw(random, int(100_000 * ratio)), draw(random, 100_000))
    return math.ceil(max(check.needed(len(found)) for check in found))


@pytest.mark.parametrize("ratio", [1.0, 9.0, 1 / 9])
def test_an_equal_canary_is_promoted_with_the_stated_power(ratio: float) -> None:
    """Its bound of the p99 is not known beforehand: it follows from the same counts."""
    random, rarer = np.random.default_rng(1), needed(ratio)
    sizes = math.ceil(rarer * max(1.0, ratio)), math.ceil(rarer * max(1.0, 1 / ratio))
    promoted = sum(is_promoted(*(draw(random, size, slow=0.008) for size in sizes)) for _ in range(TRIALS // 8))
    assert promoted / (TRIALS // 8) >= verdict.POWER - 0.03


@pytest.mark.parametrize(
    ("stable", "canary", "tolerated"),
    [(0.001, 0.006, verdict.ERRORS), (0.01, 0.02, verdict.SLOW), (0.2, 0.25, verdict.CLASSES), (0.0, 0.1, 0.1)],
)
@pytest.mark.parametrize("sizes", [(5000, 5000), (45000, 5000), (500, 5000), (300, 300)])
def test_a_canary_that_is_worse_by_what_is_tolerated_passes_with_the_stated_risk(
    stable: float, canary: float, tolerated: float, sizes: tuple[int, int]
) -> None:
    random = np.random.default_rng(2)
    hits = random.binomial(sizes[0], stable, TRIALS), random.binomial(sizes[1], canary, TRIALS)
    passed = sum(
        Check("it", Share(before, sizes[0]), Share(after, sizes[1]), tolerated).passes
        for before, after in zip(*(counts.tolist() for counts in hits), strict=True)
    )
    assert passed / TRIALS <= verdict.RISK + 0.006  # 3.8 standard errors


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """His table II: 56 of 70 and 48 of 80 have the 95 % interval 0.0524 to 0.3339."""
    z, own = 1.959964, verdict.RISK
    try:
        verdict.RISK = 0.025  # each end of a 95 % interval
        assert difference(Share(56, 70), Share(48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
        assert wilson(Share(0, 100))[1] == pytest.approx(z**2 / (100 + z**2))
    finally:
        verdict.RISK = own


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"errors": 0.03}, "errors: "),
        ({"slow": 0.1}, "answers slower than 0.005 s: "),
        ({"mix": (0.25, 0.25, 0.25, 0.25)}, "images of class a: 2"),
        ({"mix": (0.1, 0.3, 0.2, 0.4)}, "images of class d: "),
    ],
)
def test_a_canary_that_is_worse_is_refused_with_the_number(worse: dict[str, object], said: str) -> None:
    random = np.random.default_rng(3)
    stable, canary = draw(random, 3000), draw(random, 3000, **worse)  # type: ignore[arg-type]
    reasons = verdict.refusals(verdict.checks(stable, canary))
    [reason] = [reason for reason in reasons if reason.startswith(said)]
    assert "are tolerated" in reason


def test_too_little_traffic_is_refused_with_what_is_missing() -> None:
    random = np.random.default_rng(4)
    few, many = draw(random, 200), draw(random, 200)
    reasons = verdict.refusals(verdict.checks(few, many))
    [reason] = reasons
    said = re.search(r": (\d+) more answers of the (canary|stable one) are needed, it has (\d+) of (\d+)", reason)
    assert said
    times = int(said[4]) / int(said[3])
    more = math.ceil(200 * times) + 100
    assert is_promoted(draw(random, more), draw(random, more))


def test_without_any_answer_nothing_is_promoted() -> None:
    random = np.random.default_rng(5)
    none = Counts(0, 0, {}, {}, {}, 0)
    for pair in ((none, none), (none, draw(random, 9000)), (draw(random, 9000), none)):
        assert verdict.refusals(verdict.checks(*pair))
    [reason] = verdict.refusals(verdict.checks(none, draw(random, 9000)))
    assert re.search(r": (\d+) more answers of the stable one are needed, it has 0 of \1$", reason)


def test_images_of_one_request_count_as_one() -> None:
    """300 requests of 100 images each say as much of the mix as 300 images."""
    counts = Counts(300, 0, dict.fromkeys(BOUNDS, 300.0), {"a": 15_000.0, "b": 15_000.0}, {}, 30_000.0)
    shares = [check.canary.of for check in verdict.checks(counts, counts) if check.what.startswith("images")]
    assert shares == [300.0, 300.0]


def test_p_values_are_compared_where_there_are_some() -> None:
    bounds = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, math.inf)
    size = 20_000.0
    fair = {bound: size * min(bound, 1.0) for bound in bounds}
    strange = {bound: size * min(4 * bound, 1.0) for bound in bounds}
    stable, canary = (Counts(size, 0, dict.fromkeys(BOUNDS, size), {}, one, size) for one in (fair, strange))
    assert not [reason for reason in verdict.refusals(verdict.checks(stable, stable)) if "p-values" in reason]
    reasons = verdict.refusals(verdict.checks(stable, canary))
    assert any(reason.startswith("p-values of at most 0.05: 20.00 % of the canary's") for reason in reasons)


@pytest.mark.parametrize(
    ("changed", "count", "said"),
    [
        (0, 100, ""),
        (3, 200, ""),
        (0, 20, "pictures: 29 more are needed"),
        (4, 100, "pictures: 36 more"),
        (90, 100, "pictures: 90 of 100"),
    ],
)
def test_pictures_that_get_another_class(changed: int, count: int, said: str) -> None:
    reasons = verdict.of_pictures(Share(changed, count))
    assert [reason[: len(said)] for reason in reasons] == ([said] if said else [])
