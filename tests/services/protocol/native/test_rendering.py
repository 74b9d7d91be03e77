"""What answers are made of: pixels as JSON, and where many of them are worked on."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from services.protocol.native.answers import GenerateResponse, ModelRef
from services.protocol.native.rendering import image_list
from services.protocol.native.routes import _json

MODEL = ModelRef(name="m", version="1", digest="d")
GREY = np.arange(2 * 1 * 3 * 4, dtype=np.uint8).reshape(2, 1, 3, 4)
COLOUR = np.arange(2 * 3 * 3 * 4, dtype=np.uint8).reshape(2, 3, 3, 4)


@pytest.mark.parametrize(
    "images", [GREY, COLOUR, GREY[::-1], COLOUR[..., ::-1]], ids=["grey", "colour", "back", "left"]
)
def test_arrays_are_rows_of_numbers_with_colours_last(images: np.ndarray) -> None:
    answer = json.loads(_json(GenerateResponse(model=MODEL, images=image_list(images, "array"))).body)
    wanted = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    assert answer["images"] == wanted.tolist()


def test_pngs_are_base64_of_a_file_each() -> None:
    answer = json.loads(_json(GenerateResponse(model=MODEL, images=image_list(COLOUR, "png"))).body)
    for text, image in zip(answer["images"], COLOUR, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(text))) as file:
            assert np.array_equal(np.asarray(file).transpose(2, 0, 1), image)


def test_what_was_not_asked_for_is_left_out() -> None:
    assert set(json.loads(_json(GenerateResponse(model=MODEL, images=[])).body)) == {"model", "images"}
