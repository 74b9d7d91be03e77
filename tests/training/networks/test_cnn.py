import pytest
import torch

from training.networks.cnn import CNNConfig
from training.networks.residual_cnn import ResidualCNNConfig


@pytest.mark.parametrize(
    ("config", "image_shape", "parameters"),
    [
        (CNNConfig(), (1, 28, 28), 220_234),
        (CNNConfig(), (3, 32, 32), 282_250),
        (ResidualCNNConfig(), (1, 28, 28), 112_970),
        (ResidualCNNConfig(), (3, 32, 32), 115_274),
        (ResidualCNNConfig(32, blocks=2), (1, 28, 28), 205_514),
    ],
)
def test_parameters_and_logits(
    config: CNNConfig | ResidualCNNConfig, image_shape: tuple[int, int, int], parameters: int
) -> None:
    network = config.build(image_shape, 10).eval()
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network(torch.rand(3, *image_shape)).shape == (3, 10)


@pytest.mark.parametrize("config", [CNNConfig(), ResidualCNNConfig()])
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 17, 30)])
def test_any_size_and_number_of_classes(
    config: CNNConfig | ResidualCNNConfig, image_shape: tuple[int, int, int]
) -> None:
    assert config.build(image_shape, 3)(torch.rand(2, *image_shape)).shape == (2, 3)


def test_logits_come_from_the_mean_of_the_features() -> None:
    network = ResidualCNNConfig(8).build((1, 28, 30), 3).eval()
    pixels = torch.rand(2, 1, 28, 30)
    assert network.features(pixels).shape == (2, 16, 7, 7)
    assert torch.equal(network.classify(network.features(pixels).mean(dim=(2, 3))), network(pixels))


def test_the_branch_of_a_residual_block_learns_from_a_zero_gain() -> None:
    network = ResidualCNNConfig().build((1, 28, 28), 10)
    network(torch.rand(4, 1, 28, 28)).square().sum().backward()
    block = next(module for module in network.modules() if type(module).__name__ == "ResidualBlock")
    last = block.layers[-1]
    assert torch.count_nonzero(last.weight) == 0
    assert torch.count_nonzero(last.weight.grad) > 0
