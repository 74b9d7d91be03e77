"""How the benchmark of /generate reads what it is answered, and what it makes of its rounds."""

import base64
import json

import numpy as np
import pytest

from loadtests.bench.generate import Rate, numbers, summary
from services.protocol.images import grid, text_png

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), np.uint8)
PNGS = [text_png(image) for image in IMAGES]
LISTS = IMAGES[:, 0].tolist()
ANSWERS = {
    "png": json.dumps({"images": PNGS}).encode(),
    "array": json.dumps({"images": LISTS}).encode(),
    "grid": grid(IMAGES),
    "png, lines": b"\n".join(json.dumps(line).encode() for line in [{"count": 5}, *({"image": png} for png in PNGS)]),
    "array, lines": b"\n".join(json.dumps({"image": image}).encode() for image in LISTS),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_every_form_is_read_as_the_same_images(form: str) -> None:
    count, mean = numbers(ANSWERS[form], form.partition(",")[0], 5, (1, 28, 28))
    assert (count, mean) == (5, pytest.approx(IMAGES.mean()))
    assert base64.b64decode(PNGS[0]).startswith(b"\x89PNG")


def test_ratios_are_of_a_round_and_medians_of_the_rounds() -> None:
    def measured(alone: float, asked: float) -> dict[str, Rate]:
        one, many = Rate(alone, 10.0), Rate(2 * alone, 5.0)
        return {"the graph, batch 1": one, "the graph, batch 64": many, "asked": Rate(asked, 40.0)}

    *_, row = summary([measured(100, 50), measured(10, 6), measured(1000, 400)])
    assert row["case"] == "asked"
    assert row["images_per_second"] == 50
    assert row["cpu_us"] == 40
    assert row["ratios"] == {"the graph, batch 1": 0.5, "the graph, batch 64": 0.25}
    assert row["cpu_ratios"] == {"the graph, batch 1": 0.25, "the graph, batch 64": 0.125}
