"""What the data plane answers over real bundles: the model's own answers, to whoever asked, in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from services.call import Call
from services.dataplane import DataPlane
from services.errors import DeadlineExceeded, InferenceFailed
from services.inference import registry
from services.inference.bundle import Bundle
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from tests.services.dataplane.drawings import DRAWINGS
from tests.services.dataplane.planes import images, running, sums


async def test_an_answer_is_the_models_own(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    inputs = images(1, 2, 250)
    outputs = await model.infer("classify", inputs, Call())
    assert sums(outputs) == [4, 8, 1000]
    for name, direct in model.model.run("classify", inputs).items():
        np.testing.assert_array_equal(outputs[name], direct)


async def test_concurrent_requests_get_their_own_answers(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    requests = [images(n, 255 - n) for n in range(120)]
    answers = await asyncio.gather(*(model.infer("classify", request, Call()) for request in requests))
    assert [sums(answer) for answer in answers] == [[4 * n, 4 * (255 - n)] for n in range(120)]


async def test_a_call_says_how_long_each_stage_took(plane: DataPlane) -> None:
    call = Call()
    await plane.select(Classifier, "classify", None).infer("classify", images(1), call)
    assert set(call.seconds) == {"cache", "queue", "compute"}
    assert all(seconds >= 0 for seconds in call.seconds.values())


async def test_a_call_whose_deadline_passed_gets_no_answer(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    with pytest.raises(DeadlineExceeded):
        await model.infer("classify", images(1), Call(deadline=time.monotonic() - 1))
    assert sums(await model.infer("classify", images(1), Call())) == [4], "and nothing was cached for it"


async def test_an_item_that_breaks_the_engine_fails_alone(empty_store: Path, generator: Bundle) -> None:
    registry.store(generator)
    async with running("generation") as plane:
        assert plane.ready, plane.problems
        model = plane.select(Generator, "decode", None)

        async def draw(*labels: int) -> list[list[int]]:
            inputs = {"latents": np.ones((len(labels), 2), np.float32), "labels": np.array(labels)}
            outputs = await model.infer("decode", inputs, Call())
            return [image.ravel().tolist() for image in outputs["images"]]

        expected = (DRAWINGS + 1).astype(int).tolist()
        good, bad, other = await asyncio.gather(draw(0, 1), draw(2, 99), draw(2), return_exceptions=True)
        assert good == expected[:2]
        assert other == expected[2:]
        assert isinstance(bad, InferenceFailed)
        assert bad.status == 500
        assert "tiny-drawings failed on item" in bad.detail
        assert "onnx" not in bad.detail.lower(), "the engine's words stay in the log"
        assert await draw(2) == expected[2:], "the model goes on"
