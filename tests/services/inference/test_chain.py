from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.inference.chain import STEPS, STRIDE, Chains


def sampled(items: range, log_ratio: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> np.ndarray:
    """The ends [N] of chains whose proposals are standard normal, one number for each draw."""
    chains = Chains(seed, items)
    for numbers in chains.draws():
        x = np.array([np.random.default_rng(number).standard_normal() for number in numbers])
        chains.propose(x[:, None, None, None], log_ratio(x))
    return chains.images[:, 0, 0, 0]


def test_chains_end_in_the_distribution_that_the_ratio_stands_for() -> None:
    ends = sampled(range(3000), lambda x: x - 0.5)  # of N(1, 1) to N(0, 1), whose samples are proposed
    assert ends.mean() == pytest.approx(1, abs=0.06)
    assert ends.std() == pytest.approx(1, abs=0.06)


def test_equal_ratios_accept_every_proposal() -> None:
    ends = sampled(range(5), np.zeros_like)
    last = [np.random.default_rng(item + (STEPS - 1) * STRIDE).standard_normal() for item in range(5)]
    np.testing.assert_array_equal(ends, last)


def test_nothing_is_accepted_after_a_certainly_real_first_proposal() -> None:
    chains = Chains(0, range(4))
    for step, _ in enumerate(chains.draws()):
        chains.propose(np.full((4, 1, 1, 1), step), np.full(4, 1000.0 if step == 0 else 0.0))
    assert not chains.images.any()


def test_a_chain_depends_on_the_seed_and_its_item_alone() -> None:
    def log_ratio(x: np.ndarray) -> np.ndarray:
        return 2 * x

    together = sampled(range(10), log_ratio)
    np.testing.assert_array_equal(together[4:7], sampled(range(4, 7), log_ratio))
    assert not np.array_equal(together, sampled(range(10), log_ratio, seed=1))
