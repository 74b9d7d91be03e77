from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.data import Dataset, Split


def split(count: int, start: int = 0, classes: int = 2) -> Split:
    images = np.arange(start, start + count * 4, dtype=np.uint8).reshape(count, 1, 2, 2)
    return Split(images, np.arange(count, dtype=np.int64) % classes)


def dataset(**changes: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "tiny",
        "class_names": ("a", "b"),
        "train": split(4),
        "validation": split(2, 20),
        "calibration": split(2, 40),
        "test": split(3, 60),
    }
    return Dataset(**{**fields, **changes})  # type: ignore[arg-type]


def unlabelled(of: Split) -> Split:
    return Split(of.images)


def test_sizes_and_shape_are_those_of_the_arrays() -> None:
    data = dataset()
    assert data.image_shape == (1, 2, 2)
    assert data.splits == {"train": 4, "validation": 2, "calibration": 2, "test": 3}


@pytest.mark.parametrize("role", ["train", "validation", "calibration", "test"])
def test_digest_changes_with_any_byte_of_images_and_labels(role: str) -> None:
    data = dataset()
    before: Split = getattr(data, role)
    assert before.labels is not None
    for pixel in range(before.images.size):
        images = before.images.copy()
        images.flat[pixel] ^= 1
        assert dataset(**{role: Split(images, before.labels)}).digest != data.digest
    for index in range(len(before)):
        labels = before.labels.copy()
        labels[index] ^= 1
        assert dataset(**{role: Split(before.images, labels)}).digest != data.digest


def test_digest_covers_name_class_names_shape_and_absent_labels() -> None:
    data = dataset()
    reshaped = {
        role: Split(getattr(data, role).images.reshape(-1, 1, 1, 4), getattr(data, role).labels) for role in data.splits
    }
    bare = {role: unlabelled(getattr(data, role)) for role in data.splits}
    others = [
        dataset(name="other"),
        dataset(class_names=("a", "c")),
        dataset(class_names=("a", "b", "c")),
        dataset(**reshaped),
        dataset(**bare, class_names=()),
        dataset(validation=data.calibration, calibration=data.validation),
    ]
    assert len({data.digest, *(other.digest for other in others)}) == 7


def test_digest_is_that_of_the_content_not_of_the_memory_layout() -> None:
    data = dataset()
    rolled = Split(np.asfortranarray(data.train.images), data.train.labels)
    assert not rolled.images.flags.c_contiguous
    assert dataset(train=rolled).digest == data.digest == dataset().digest


def test_take_copies_in_the_order_asked_for() -> None:
    whole = split(4)
    some = whole.take(np.array([2, 0]))
    assert some.labels is not None
    assert some.images[:, 0, 0, 0].tolist() == [8, 0]
    assert some.labels.tolist() == [0, 0]
    some.images[:] = 99
    assert whole.images.max() == 15
    assert unlabelled(whole).take(np.array([1])).labels is None


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset().name = "other"  # type: ignore[misc]


def test_wrong_arrays_are_refused_with_what_came() -> None:
    images = np.zeros((3, 1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"images are float32 .* uint8 \[N,C,H,W\]"):
        Split(images.astype(np.float32))
    with pytest.raises(ValueError, match=r"images are uint8 \(3, 2, 2\)"):
        Split(images[:, 0])
    with pytest.raises(ValueError, match=r"labels are int64 \(2,\).*int64 \[3\]"):
        Split(images, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="labels are int32"):
        Split(images, np.zeros(3, np.int32))


def test_splits_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"calibration: images are \(3, 2, 2\), but those of train are \(1, 2, 2\)"):
        dataset(calibration=Split(np.zeros((2, 3, 2, 2), np.uint8), np.zeros(2, np.int64)))
    with pytest.raises(ValueError, match="test: give both"):
        dataset(test=unlabelled(split(2)))
    with pytest.raises(ValueError, match="train: give both"):
        dataset(class_names=())
    with pytest.raises(ValueError, match="validation: labels must be 0 to 1"):
        dataset(validation=split(3, classes=3))
