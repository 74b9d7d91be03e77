"""Which image goes to which split: fixed by the data alone, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def permutation(count: int) -> NDArray[np.int64]:
    """The fixed shuffle of 0 to `count` - 1.

    The stream of `RandomState` never changes; that of `default_rng` may change with the version of NumPy.
    """
    return np.random.RandomState(0).permutation(count).astype(np.int64)


def stratified(
    order: NDArray[np.int64], labels: NDArray[np.int64] | None, shares: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """Cut `order`, a permutation of the N items, into disjoint parts in proportion to `shares`, class by class.

    A part keeps the order of its items in `order`. One more item in a class, at any position in `order`, moves at most
    one other item across each cut.

    Args:
        order: item indices [N].
        labels: class of item i at labels[i], [N]; None cuts all items as one class.
        shares: relative sizes; each class's cuts are rounded to the nearest item.
    """
    part = np.empty(len(order), dtype=np.int64)
    groups = [order] if labels is None else [order[labels[order] == label] for label in np.unique(labels)]
    for group in groups:
        # Integers, so that the split does not depend on floating-point rounding.
        cuts = (2 * len(group) * np.cumsum(shares) + sum(shares)) // (2 * sum(shares))
        part[group] = np.searchsorted(cuts, np.arange(len(group)), side="right")
    return tuple(order[part[order] == index] for index in range(len(shares)))
