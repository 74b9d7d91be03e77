"""A bundle of the generator of known drawings, and a data plane that serves the tiny classifier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from services.dataplane import DataPlane
from services.inference import registry
from services.inference.bundle import Bundle, Graph, Manifest, Parity, Tensor, seal
from tests.services.dataplane.drawings import by_class
from tests.services.dataplane.planes import running


@pytest.fixture
def generator(tmp_path: Path, draft: Manifest) -> Bundle:
    directory = tmp_path / "generator"
    directory.mkdir()
    onnx.save(by_class(), directory / "decode.onnx")
    inputs = (
        Tensor(name="latents", dtype="float32", shape=("N", 2)),
        Tensor(name="labels", dtype="int64", shape=("N",)),
    )
    outputs = (Tensor(name="images", dtype="uint8", shape=("N", 1, 2, 2)),)
    parity = Parity(batch_sizes=(1,), max_abs_diff=0, bound=0)
    decode = Graph(file="decode.onnx", opset=20, inputs=inputs, outputs=outputs, parity=parity)
    fields = {"name": "tiny-drawings", "task": "generation", "latent_size": 2, "graphs": {"decode": decode}}
    return seal(directory, draft.model_copy(update=fields))


@pytest.fixture
async def plane(empty_store: Path, make_bundle: Any) -> AsyncIterator[DataPlane]:
    """One that serves the tiny classifier, whose three logits are the sum of the pixels."""
    registry.store(make_bundle())
    async with running("classification") as plane:
        assert plane.ready, plane.problems
        yield plane
