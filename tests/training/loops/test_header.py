from __future__ import annotations

from dataclasses import replace

import pytest

from training.data.augmentation import Affine, Compose, Flip
from training.loops.header import difference, header
from training.recipes import RECIPES


def test_every_value_of_a_recipe_is_in_the_header() -> None:
    cnn = RECIPES["reference"].for_dataset("fashion-mnist").networks["cnn"]
    assert cnn
    made = header(recipe=cnn)
    assert made["recipe"]["network"] == {"kind": "ResidualCNNConfig", "channels": 32, "blocks": 2}
    assert [step["kind"] for step in made["recipe"]["augment"]["steps"]] == ["Flip", "Shift", "Cutout"]
    assert made["versions"].keys() == {"duet", "torch"}
    other = difference(made, header(recipe=replace(cnn, weight_decay=0.5)))
    assert other == ("recipe.weight_decay", cnn.weight_decay, 0.5)


def test_augmentations_of_equal_values_differ_by_their_kind() -> None:
    assert difference(header(a=Affine()), header(a=Flip())) == ("a.kind", "Affine", "Flip")
    assert difference(header(a=Compose((Flip(),))), header(a=Compose((Flip(),)))) is None


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ("b", 2, 3)),
        ({"a": {"b": {"c": 1}}}, {}, ("a.b.c", 1, None)),
        ({"a": {}, "b": 1}, {"b": 2}, ("b", 1, 2)),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a", [1, 2], [1, 3])),
        ({"a": {"b": 1}}, {"a": 1}, ("a", {"b": 1}, 1)),
    ],
)
def test_the_first_difference_is_named(found: dict[str, object], wanted: dict[str, object], expected: object) -> None:
    assert difference(found, wanted) == expected


def test_what_is_no_value_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON value and no recipe"):
        header(recipe=object())
