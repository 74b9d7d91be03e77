from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data import Dataset, Split
from training.data.arrays import philox
from training.export.trace import trace
from training.graphs.session import open_graph, run
from training.scorer.transformations import Views, names, of_views, turns


def images(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    return philox(0).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize(("side", "views"), [((12, 12), 16), ((8, 12), 8), ((64, 64), 16)])
def test_each_view_is_another_permutation_of_the_pixels(side: tuple[int, int], views: int) -> None:
    numbered = torch.arange(side[0] * side[1]).view(1, 1, *side)
    (made,) = Views()(numbered)
    assert made.shape == (views, 1, *side)
    assert len(names(*side)) == len(set(names(*side))) == views
    orders = [tuple(view.flatten().tolist()) for view in made]
    assert len(set(orders)) == views
    assert all(sorted(order) == list(range(side[0] * side[1])) for order in orders)


def test_the_names_say_what_was_done() -> None:
    [image] = images(1, (3, 10, 10))
    (made,) = Views()(torch.from_numpy(image[None]))
    shown = dict(zip(names(10, 10), made.numpy(), strict=True))
    assert np.array_equal(shown["0"], image)
    assert np.array_equal(shown["0 mirrored"], image[:, :, ::-1])
    assert np.array_equal(shown["180"], image[:, ::-1, ::-1])
    assert {image.tobytes() for image in (shown["90"], shown["270"])} == {
        np.rot90(image, quarter, (1, 2)).tobytes() for quarter in (1, 3)
    }
    assert np.array_equal(shown["0 shifted"], np.roll(image, (2, 2), (1, 2)))
    assert turns(8, 12) == (0, 2)


def test_the_labels_tell_which_view() -> None:
    whole = images(40, (1, 8, 12))
    splits = [Split(whole[:10]), Split(whole[10:20]), Split(whole[20:30]), Split(whole[30:])]
    dataset = of_views(Dataset("plates", (), *splits))
    assert dataset.name == "plates-views"
    assert dataset.class_names == names(8, 12)
    assert dataset.splits == {"train": 80, "validation": 80, "calibration": 80, "test": 80}
    assert dataset.train.labels is not None
    for image, views in zip(whole, np.split(dataset.train.images, 10), strict=False):
        assert np.array_equal(views, Views()(torch.from_numpy(image[None]))[0].numpy())
    assert dataset.train.labels.tolist() == list(range(8)) * 10


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 8, 12)])
def test_exported_views_are_the_same(shape: tuple[int, int, int]) -> None:
    given = images(5, shape)
    model = trace(Views(), {"images": given}, "views")
    made = run(open_graph(model.SerializeToString()), {"images": given}, chunk=5)["views"]
    assert np.array_equal(made, Views()(torch.from_numpy(given))[0].numpy())
