"""Explanations and prediction sets, the same by the native route and by V2."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from services.protocol.native.answers import ClassifyResponse

pytestmark = pytest.mark.server

EXPLANATIONS = ["class_activation", "occlusion", "rise"]
V2 = "/v2/models/digits-cnn/infer"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Four digits, uint8 [4,28,28]."""
    small = [Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in load_digits().images[:4]]
    return np.stack([np.asarray(image.resize((28, 28))) for image in small])


def native(url: str, images: np.ndarray, **fields: Any) -> Any:
    answer = httpx.post(f"{url}/classify", json={"images": images.tolist(), **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def v2(url: str, images: np.ndarray, *outputs: str, **parameters: Any) -> dict[str, np.ndarray]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [len(images), 1, 28, 28], "data": images.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs], "parameters": parameters}
    answer = httpx.post(url + V2, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return {spec["name"]: np.reshape(spec["data"], spec["shape"]) for spec in answer.json()["outputs"]}


@pytest.mark.parametrize("kind", EXPLANATIONS)
def test_the_picture_is_the_map_that_v2_gives(allinone_url: str, images: np.ndarray, kind: str) -> None:
    maps = v2(allinone_url, images, kind)[kind]
    assert maps.shape == images.shape
    for prediction, saliency in zip(native(allinone_url, images, explanation=kind)["predictions"], maps, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(prediction["explanation"]))))
        assert picture.shape == (28, 28, 3)
        brightness = picture.astype(int).sum(axis=2)
        assert brightness.flat[saliency.argmax()] == brightness.max()
        assert (brightness[saliency <= 0] == brightness.min()).all()


@pytest.mark.parametrize("kind", EXPLANATIONS)
def test_another_class_has_another_map(allinone_url: str, images: np.ndarray, kind: str) -> None:
    [first] = native(allinone_url, images[:1])["predictions"]
    own = v2(allinone_url, images[:1], kind)[kind]
    assert (v2(allinone_url, images[:1], kind, explain_class=first["label"])[kind] == own).all()
    assert (v2(allinone_url, images[:1], kind, explain_class=(first["index"] + 1) % 10)[kind] != own).any()
    pictures = [
        native(allinone_url, images[:1], explanation=kind, **fields)["predictions"][0]["explanation"]
        for fields in ({}, {"explain_class": first["index"]}, {"explain_class": (first["index"] + 1) % 10})
    ]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_prediction_set_holds_the_classes_that_v2_marks(allinone_url: str, images: np.ndarray) -> None:
    answer = native(allinone_url, images, prediction_set=True)
    marked = v2(allinone_url, images, "prediction_set")["prediction_set"]
    assert answer["coverage"] == 0.95
    assert set(np.unique(marked)) <= {0, 1}
    named = [[str(index) for index in np.flatnonzero(row)] for row in marked]
    assert [prediction["prediction_set"] for prediction in answer["predictions"]] == named


def test_what_was_not_asked_for_is_not_there(allinone_url: str, images: np.ndarray) -> None:
    answer = native(allinone_url, images)
    assert answer.keys() == {"model", "predictions"}
    assert answer["predictions"][0].keys() == {"label", "index", "probability", "top"}


@pytest.mark.parametrize("label", ["none such", 10, -1])
def test_an_unknown_class_to_explain_is_named(allinone_url: str, images: np.ndarray, label: str | int) -> None:
    answer = httpx.post(
        f"{allinone_url}/classify",
        json={"images": images.tolist(), "explanation": "occlusion", "explain_class": label},
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "explain_class")
    body = {
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": [0] * 784}],
        "outputs": [{"name": "rise"}],
        "parameters": {"explain_class": label},
    }
    answer = httpx.post(allinone_url + V2, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "parameters.explain_class")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prediction_set": True, "top_k": 2},
        {"explanation": "class_activation", "top_k": 99},
    ],
)
def test_an_answer_has_the_fields_of_its_schema_in_their_order(
    allinone_url: str, images: np.ndarray, fields: dict[str, Any]
) -> None:
    found = native(allinone_url, images, **fields)
    described = ClassifyResponse.model_validate(found, extra="forbid").model_dump(exclude_none=True)
    assert json.dumps(found) == json.dumps(described)
    for prediction in found["predictions"]:
        probabilities = [one["probability"] for one in prediction["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert prediction["top"][0] == {name: prediction[name] for name in ("label", "index", "probability")}
