"""A graph that computes anything else than its network is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tests.training.linear import SHAPE, Linear, images
from training.data.arrays import philox
from training.export.parity import measure_parity, top1_agreement
from training.export.trace import export_graph
from training.export.wrappers import Classify, Generate
from training.graphs.session import ExportError, open_graph, run


def test_dropout_left_on_stops_the_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"classify\.onnx: \w+ at batch \d+ differs from PyTorch by .*, bound "):
        export_graph(Classify(Linear(dropout=True)), {"images": images()}, tmp_path / "classify.onnx")


@pytest.mark.parametrize("change", [1e-2, np.nan])
def test_an_altered_graph_fails_parity(tmp_path: Path, change: float) -> None:
    path = tmp_path / "classify.onnx"
    network = Classify(Linear()).eval()
    export_graph(network, {"images": images()}, path)
    measure_parity(network, path, {"images": images()})
    alter(path, change)
    with pytest.raises(ExportError, match="logits at batch 1 differs"):
        measure_parity(network, path, {"images": images()})


def alter(path: Path, change: float) -> None:
    """Add `change` to the bias that is in the file."""
    model = onnx.load(path)
    [tensor] = [t for t in model.graph.initializer if tuple(t.dims) == (10,)]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(change), tensor.name))
    onnx.save(model, path)


def test_agreement_is_the_share_of_equal_classes(tmp_path: Path) -> None:
    path = tmp_path / "classify.onnx"
    network = Linear()
    export_graph(Classify(network), {"images": images()}, path)
    many = images(300, seed=2)
    assert top1_agreement(Classify(network), path, many) == 1
    before = run(open_graph(path), {"images": many})["logits"].argmax(axis=1)
    network.layer.bias.data[3] += 0.3
    with torch.no_grad():
        after = network(torch.from_numpy(many).float() / 255).argmax(dim=1).numpy()
    assert 0 < (before == after).mean() < 1
    assert top1_agreement(Classify(network), path, many) == (before == after).mean()


class Levels(nn.Module):
    """Draws the grey level `level` / 255 everywhere, plus `offset` levels on the first `changed` pixels."""

    latent_size = 3

    def __init__(self, offset: float = 0.0, changed: int = 0) -> None:
        super().__init__()
        row = torch.full((SHAPE[1] * SHAPE[2],), 0.5)
        row[:changed] += offset / 255
        self.register_buffer("row", row)

    def draw(self, latents: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(self.row, Tensor)
        return (self.row + 0 * latents[:, :1] + 0 * labels[:, None]).view(-1, *SHAPE)


@pytest.mark.parametrize(("offset", "changed", "complaint"), [
    (-1e-3, 30, "0.00% of pixels at batch 1 are equal, bound 99.9%"),
    (1.0, 1, "pixels at batch 1 differs from PyTorch by 0.00392, bound 1e-05"),
    (2.0, 1, "images at batch 1 differs from PyTorch by 0.00784, bound 0.00392"),
])  # fmt: skip
def test_uint8_parity(tmp_path: Path, offset: float, changed: int, complaint: str) -> None:
    """0.5 * 255 = 127.5 lies on the edge of rounding (to even, 128): a thousandth of a level less moves it."""
    latents: Any = {"latents": philox(0).standard_normal((64, 3), dtype=np.float32), "labels": np.zeros(64, np.int64)}
    path = tmp_path / "decode.onnx"
    export_graph(Generate(Levels()), latents, path)
    with pytest.raises(ExportError, match=complaint):
        measure_parity(Generate(Levels(offset, changed)), path, latents)
