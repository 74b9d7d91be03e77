import numpy as np
import pytest

from training.data import Dataset, Split, load
from training.studies.learning_curve.subsets import sizes, subset


def labelled(counts: tuple[int, ...]) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    images = np.arange(len(labels)).astype(np.uint8)[:, None, None, None]
    split = Split(images, labels)
    return Dataset("some", tuple("abcdefgh"[: len(counts)]), split, split, split, split)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((5, 9), (5,)),
        ((10, 90), (10,)),
        ((94, 91), (10, 30, 91)),
        ((1000, 1000), (10, 30, 100, 300, 1000)),
        ((5000, 6000), (10, 30, 100, 300, 1000)),
    ],
)
def test_as_far_as_the_rarest_class_goes(counts: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert sizes(labelled(counts)) == expected


def test_every_class_has_as_many_and_larger_subsets_have_the_smaller_ones() -> None:
    digits = load("digits")
    small, large = (subset(digits, size, seed=1) for size in (10, 30))
    for data, size in ((small, 10), (large, 30)):
        assert np.bincount(data.train.labels).tolist() == [size] * 10
        assert data.validation is data.train
        assert data.test is digits.test
    assert {image.tobytes() for image in small.train.images} <= {image.tobytes() for image in large.train.images}


def test_seeds_choose_other_images() -> None:
    digits = load("digits")
    first, again, other = (subset(digits, 10, seed).train.images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unlabelled_data_are_refused() -> None:
    split = Split(np.zeros((3, 1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="some has no labels"):
        sizes(Dataset("some", (), split, split, split, split))
