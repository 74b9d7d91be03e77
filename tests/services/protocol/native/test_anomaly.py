"""The native `/score`: what is asked for comes, and nothing else; and which images count for drift."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.scorer import Scorer
from services.protocol.native.anomaly import score
from services.protocol.native.requests import ScoreRequest
from tests.services.scorers import shade

SPOTS = shade(40)
SPOTS[0, 0, 0, 3] = 250
SPOTS[0, 0, 2:, :2] = 150
SPOTS[0, 0, 3, 0] = 120


async def ask(plane: DataPlane, images: np.ndarray, *, model: str = "tiny-scorer", **fields: Any) -> dict[str, Any]:
    request = ScoreRequest(images=[image[0].tolist() for image in images], model=model, **fields)
    return (await score(plane, request, Call())).model_dump(exclude_none=True)


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


async def test_by_default_there_is_a_verdict_and_what_it_rests_on(scorers: DataPlane) -> None:
    answer = await ask(scorers, shade(20, 199))
    assert answer["model"]["name"] == "tiny-scorer"
    assert [list(each) for each in answer["scores"]] == [["p_value", "anomalous", "score"]] * 2
    assert [each["anomalous"] for each in answer["scores"]] == [False, True]
    assert (answer["alpha"], answer["policy"], answer["threshold"]) == (0.05, "p-value", 0.05)
    assert answer["calibration_size"] == 400
    assert answer["false_positive_band"][0] < 0.05 < answer["false_positive_band"][1]
    assert "warning" not in answer


async def test_everything_comes_when_it_is_asked_for(scorers: DataPlane) -> None:
    wish = {"heatmap": True, "regions": True, "statistics": True, "look_alike": True, "per_class": True}
    answer = await ask(scorers, np.concatenate([SPOTS, shade(10, label=1)]), **wish)
    spots, plain = answer["scores"]
    assert spots["regions"] == [
        {"box": (0, 2, 2, 4), "peak": 1.5, "area": 4},
        {"box": (3, 0, 4, 1), "peak": 2.5, "area": 1},
    ]
    assert plain["regions"] == []
    assert (spots["label"], plain["label"]) == ("dark", "grey")
    assert spots["statistics"] == pytest.approx(
        {"brightness": spots["p_value"], "brightness of its class": spots["class_p_value"]}
    )
    assert np.array_equal(pixels(spots["look_alike"]), 255 - SPOTS[0, 0])
    heat = pixels(spots["heatmap"]).astype(int).sum(axis=2)
    assert heat[0, 3] == heat[2, 0] == heat.max() > 2 * heat[0, 0]


@pytest.mark.parametrize("wish", ["heatmap", "regions", "statistics", "look_alike"])
async def test_what_is_not_asked_for_does_not_come(scorers: DataPlane, wish: str) -> None:
    [each] = (await ask(scorers, SPOTS, **{wish: True}))["scores"]
    assert set(each) == {"p_value", "anomalous", "score", wish}


async def test_regions_are_bounded_in_number(scorers: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.protocol.native.anomaly.REGIONS", 1)
    [each] = (await ask(scorers, SPOTS, regions=True))["scores"]
    assert [region["area"] for region in each["regions"]] == [4]


@pytest.mark.parametrize("field", ["statistics", "look_alike", "per_class"])
async def test_a_model_without_it_is_a_refusal_that_names_the_field(scorers: DataPlane, field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: model plain does not compute") as refused:
        await ask(scorers, SPOTS, model="plain", **{field: True})
    assert refused.value.field == field
    assert "train a new scorer" in refused.value.detail


async def test_few_calibration_images_are_said_to_be_few(scorers: DataPlane) -> None:
    answer = await ask(scorers, SPOTS, model="few", alpha=0.001)
    assert answer["warning"].startswith("no image can be anomalous at alpha 0.001")
    assert answer["false_positive_band"] == (0, 0)


async def test_an_answer_from_the_cache_is_the_same_and_is_known_as_a_repeat(scorers: DataPlane) -> None:
    scorer = scorers.select(Scorer, "score", "tiny-scorer").model
    wish = {"statistics": True, "look_alike": True, "regions": True}
    first = await ask(scorers, SPOTS, **wish)
    call = Call()
    request = ScoreRequest(images=[SPOTS[0, 0].tolist()], model="tiny-scorer", **wish)
    again = (await score(scorers, request, call)).model_dump(exclude_none=True)
    assert call.hits == 1
    assert again == first
    assert (scorer.drift.images, scorer.drift.repeats) == (2, 0.5)


async def test_the_client_of_the_call_is_the_one_that_votes(scorers: DataPlane) -> None:
    drift = scorers.select(Scorer, "score", "tiny-scorer").model.drift
    for name in (b"a", b"b", None):
        request = ScoreRequest(images=[SPOTS[0, 0].tolist()], model="tiny-scorer")
        await score(scorers, request, Call(client=name))
    assert [client.name for client in drift.streams] == ["a", "b", "*"]
    assert drift.repeats == 0


async def test_a_trial_does_not_count(scorers: DataPlane) -> None:
    drift = scorers.select(Scorer, "score", "tiny-scorer").model.drift
    request = ScoreRequest(images=[SPOTS[0, 0].tolist()], model="tiny-scorer")
    await score(scorers, request, Call(client=b"a", trial=True))
    assert drift.images == 0
    assert drift.streams == []


async def test_a_refused_request_does_not_count(scorers: DataPlane) -> None:
    scorer = scorers.select(Scorer, "score", "tiny-scorer").model
    with pytest.raises(InvalidInput):
        await ask(scorers, SPOTS, policy="top-fraction")
    assert scorer.drift.images == 0
