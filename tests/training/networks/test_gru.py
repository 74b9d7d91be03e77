from pathlib import Path

import onnx
import pytest
import torch

from training.data import load
from training.export.classifier import export_classifier
from training.export.wrappers import Classify
from training.networks.gru import GRUConfig


def test_it_reads_rows_of_any_image() -> None:
    network = GRUConfig(hidden=16).build((3, 20, 12), 7)
    assert network.read.input_size == 3 * 12
    assert network(torch.rand(5, 3, 20, 12)).shape == (5, 7)


def test_the_last_row_counts_and_so_does_the_order() -> None:
    torch.manual_seed(0)
    network = GRUConfig(hidden=16).build((1, 8, 8), 3)
    image = torch.rand(1, 1, 8, 8)
    changed = image.clone()
    changed[:, :, -1] = 0
    assert not torch.allclose(network(image), network(changed))
    assert not torch.allclose(network(image), network(image.flip(2)))


@pytest.mark.slow
def test_the_exported_graph_has_one_recurrent_operator(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = load("digits")
    network = GRUConfig(hidden=16).build(data.image_shape, 10).eval()
    graphs = export_classifier(network, data, tmp_path).graphs
    operators = [node.op_type for node in onnx.load(tmp_path / "classify.onnx").graph.node]
    assert operators.count("GRU") == 1
    assert [tensor.name for tensor in graphs["classify"].outputs] == list(Classify(network, 1.0, 0.5).outputs)
    assert graphs["classify"].parity.top1_agreement == 1
