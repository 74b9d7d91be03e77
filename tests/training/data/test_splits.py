from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.splits import permutation, stratified

labels_of = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(lambda labels: np.array(labels, np.int64))
shares_of = st.lists(st.integers(1, 100), min_size=2, max_size=5).map(tuple)


def test_permutation_is_the_same_for_ever() -> None:
    order = permutation(60_000)
    assert sorted(order.tolist()) == list(range(60_000))
    # The splits of published bundles hang on this number.
    assert (
        hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
        == "7e036c4b3f1dd66e54edf1c84c91af7933021075586bc01f9f38916f0fa3f23e"
    )


@settings(deadline=None)
@given(labels_of, shares_of, st.booleans())
def test_parts_are_disjoint_cover_everything_and_keep_the_order(
    labels: np.ndarray, shares: tuple[int, ...], labelled: bool
) -> None:
    order = permutation(len(labels))
    parts = stratified(order, labels if labelled else None, shares)
    assert len(parts) == len(shares)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    place = {int(item): rank for rank, item in enumerate(order)}
    for part in parts:
        assert all(place[a] < place[b] for a, b in pairwise(part.tolist()))
    again = stratified(order, labels if labelled else None, shares)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@settings(deadline=None)
@given(labels_of, shares_of)
def test_each_class_has_its_share_within_one_image(labels: np.ndarray, shares: tuple[int, ...]) -> None:
    parts = stratified(permutation(len(labels)), labels, shares)
    for label in np.unique(labels):
        total = np.count_nonzero(labels == label)
        for part, share in zip(parts, shares, strict=True):
            assert abs(np.count_nonzero(labels[part] == label) - total * share / sum(shares)) <= 1


@settings(deadline=None)
@given(st.integers(10, 300))
def test_ten_images_are_enough_for_one_in_every_tenth(count: int) -> None:
    parts = stratified(permutation(count), None, (70, 10, 10, 10))
    assert min(len(part) for part in parts) >= 1


@settings(deadline=None)
@given(labels_of, shares_of, st.integers(0, 3), st.randoms(use_true_random=False))
def test_one_item_more_moves_at_most_one_other_across_each_cut(
    labels: np.ndarray, shares: tuple[int, ...], label: int, random: object
) -> None:
    order = permutation(len(labels))
    grown = np.insert(order, random.randint(0, len(order)), len(labels))  # type: ignore[attr-defined]
    before = part_of(stratified(order, labels, shares))
    after = part_of(stratified(grown, np.append(labels, label), shares))
    moved = [item for item, part in before.items() if after[item] != part]
    assert len(moved) <= len(shares) - 1
    assert all(labels[item] == label for item in moved)


def part_of(parts: tuple[np.ndarray, ...]) -> dict[int, int]:
    return {int(item): index for index, part in enumerate(parts) for item in part}
