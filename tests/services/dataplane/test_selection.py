"""Which model the data plane selects by a caller's words, and what it says where there is none."""

from __future__ import annotations

import pytest

from services.dataplane import DataPlane
from services.errors import UnknownModel
from services.inference.classifier import Classifier
from services.inference.scorer import Scorer


async def test_a_model_is_found_by_name_by_tag_and_by_nothing(plane: DataPlane) -> None:
    (entry,) = plane.entries
    models = [plane.select(Classifier, "classify", name) for name in (None, entry.name, entry.tag)]
    assert models[0] is models[1] is models[2]


@pytest.mark.parametrize(
    "name", ["no", "tiny-linear:0", "tiny-linear:", "TINY-LINEAR", "", "\x00", "\ud800", "x" * 999]
)
async def test_an_unknown_model_is_named_beside_those_there_are(plane: DataPlane, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"is not served here; served are tiny-linear:") as caught:
        plane.select(Classifier, "classify", name)
    assert caught.value.field == "model"
    assert len(caught.value.detail) < 200


async def test_a_model_of_another_task_is_unknown(plane: DataPlane) -> None:
    with pytest.raises(UnknownModel, match="served are none"):
        plane.select(Scorer, "score", "tiny-linear")
    with pytest.raises(UnknownModel, match="'explain'"):
        plane.select(Classifier, "explain", "tiny-linear")
