"""The V2 face of a scorer: outputs that only some graphs have, and the parameters of its verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.scorer import Scorer
from services.protocol.services import PROTOCOLS
from services.protocol.v2.routes import V2
from tests.services.protocol.bodies import unread
from tests.services.scorers import shade

Ask = Callable[..., Awaitable[Any]]
OPTIONAL = ["label", "class_p_value", "statistics", "look_alike"]
IMAGES = shade(10, 198, 60, label=1)


@pytest.fixture
def plane(scorers: DataPlane) -> DataPlane:
    """Whom `ask` asks here."""
    return scorers


def named(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": {"binary_data": True}} for name in names]


def test_metadata_names_what_the_graph_has(scorers: DataPlane) -> None:
    def outputs(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        tensors = PROTOCOLS["anomaly"].signature(scorers.select(Scorer, "score", name).model).outputs
        return {tensor.name: (tensor.datatype, tensor.shape) for tensor in tensors}

    plain, rich = outputs("plain"), outputs("tiny-scorer")
    assert list(plain) == ["p_value", "anomalous", "score", "residual"]
    assert {name: rich[name] for name in rich if name not in plain} == {
        "label": ("BYTES", (-1,)),
        "class_p_value": ("FP32", (-1,)),
        "statistics": ("FP32", (-1, 2)),
        "look_alike": ("UINT8", (-1, 1, 4, 4)),
    }


async def test_metadata_names_the_columns_of_the_statistics(scorers: DataPlane) -> None:
    async def parameters(name: str) -> dict[str, Any]:
        answer = await V2(scorers, "tested").answer("GET", f"/v2/models/{name}", {}, unread(), Call())
        return dict(json.loads(answer.body)["parameters"])

    assert (await parameters("tiny-scorer"))["statistics"] == ["brightness", "brightness of its class"]
    assert "statistics" not in await parameters("plain")


async def test_by_default_the_verdict_comes_alone(ask: Ask) -> None:
    assert list((await ask("tiny-scorer", {"images": IMAGES})).outputs) == ["p_value", "anomalous", "score"]


async def test_the_rest_comes_when_it_is_asked_for(ask: Ask) -> None:
    outputs = (await ask("tiny-scorer", {"images": IMAGES}, outputs=named(*OPTIONAL, "residual"))).outputs
    assert list(outputs) == [*OPTIONAL, "residual"]
    assert outputs["label"].tolist() == ["grey"] * 3
    assert np.array_equal(outputs["look_alike"], 255 - IMAGES)
    assert np.exp(-outputs["statistics"][:, 1]) == pytest.approx(outputs["class_p_value"])
    assert outputs["residual"] == pytest.approx(IMAGES[:, 0] / np.float32(100))


@pytest.mark.parametrize("name", OPTIONAL)
async def test_what_the_graph_has_not_is_refused(ask: Ask, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"outputs.0. is '{name}'; this model has p_value"):
        await ask("plain", {"images": IMAGES}, outputs=named(name))


async def test_the_parameters_decide_as_they_do_in_the_native_protocol(ask: Ask) -> None:
    async def verdicts(**parameters: Any) -> list[bool]:
        outputs = (await ask("tiny-scorer", {"images": IMAGES}, parameters=parameters)).outputs
        return list(outputs["anomalous"].tolist())

    assert await verdicts() == [False, True, False]
    assert await verdicts(policy="top-fraction", alpha=0.5) == [False, True, True]
    assert await verdicts(policy="fdr", alpha=0.01) == [False, False, False]
    assert await verdicts(alpha=0.02) == [False, True, False]
    assert await verdicts(alpha=0.02, per_class=True) == [False, False, False]


@pytest.mark.parametrize(
    ("model", "field", "parameters"),
    [
        ("tiny-scorer", "policy", {"policy": "strict"}),
        ("tiny-scorer", "policy", {"policy": 1}),
        ("tiny-scorer", "policy", {"policy": ["fdr"]}),
        ("tiny-scorer", "policy", {"policy": None}),
        ("tiny-scorer", "per_class", {"per_class": "yes"}),
        ("tiny-scorer", "per_class", {"per_class": 1}),
        ("tiny-scorer", "per_class", {"per_class": None}),
        ("tiny-scorer", "per_class", {"per_class": True, "policy": "top-fraction"}),
        ("plain", "per_class", {"per_class": True}),
        ("tiny-scorer", "alpha", {"alpha": 0}),
        ("tiny-scorer", "alpha", {"alpha": 1}),
        ("tiny-scorer", "alpha", {"alpha": "0.05"}),
        ("tiny-scorer", "alpha", {"alpha": True}),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(ask: Ask, model: str, field: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        await ask(model, {"images": IMAGES}, parameters=parameters)
    assert refused.value.field == f"parameters.{field}"


async def test_the_most_unusual_of_one_is_no_question(ask: Ask) -> None:
    with pytest.raises(InvalidInput, match=r"parameters\.policy: top-fraction compares the images of one request"):
        await ask("tiny-scorer", {"images": IMAGES[:1]}, parameters={"policy": "top-fraction"})


async def test_every_answer_is_watched_for_drift(ask: Ask, scorers: DataPlane) -> None:
    drift = scorers.select(Scorer, "score", "tiny-scorer").model.drift
    await ask("tiny-scorer", {"images": IMAGES})
    await ask("tiny-scorer", {"images": IMAGES}, cached=True)
    assert drift.images == 6
    assert drift.repeats == 0.5
    drift.settle(time.time() + 60)
    assert drift.rates()["class"][1].observed == 1
