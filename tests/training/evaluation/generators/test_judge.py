from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.training.conftest import Published
from training.evaluation.generators.judge import JudgeError, judge_of, perceptual_distance
from training.graphs.session import open_graph, run


@pytest.mark.slow
def test_features_are_what_the_last_layer_makes_the_logits_of(published: Published) -> None:
    images = published.dataset.test.images[:50]
    seen = judge_of(published.classifier)(images)
    path = published.classifier.graph_path("classify")
    expected = run(open_graph(path), {"images": images})
    np.testing.assert_array_equal(seen.probabilities, expected["probabilities"])
    graph = onnx.load(path).graph
    dense = [node for node in graph.node if node.op_type == "Gemm"][-1]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weight, bias = (weights[name] for name in dense.input[1:])
    logits = seen.features @ (weight.T if len(weight) == len(bias) else weight) + bias
    temperature = published.classifier.manifest.constants["temperature"]
    np.testing.assert_allclose(logits / temperature, expected["logits"], atol=1e-3)


@pytest.mark.slow
def test_a_generator_cannot_judge(published: Published) -> None:
    with pytest.raises((JudgeError, KeyError)):
        judge_of(published.generator)


@pytest.mark.slow
def test_an_image_looks_like_itself_and_unlike_any_other(published: Published) -> None:
    judge, images = judge_of(published.classifier), published.dataset.test.images
    others = images[np.random.default_rng(0).permutation(len(images))]
    assert perceptual_distance(judge, images, images) == 0
    assert perceptual_distance(judge, images, others) == pytest.approx(1, abs=0.1)
    assert 0 < perceptual_distance(judge, images, np.maximum(images, 60)) < 1
