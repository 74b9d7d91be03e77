import torch
from torch import nn

from training.loops.ema import Average
from training.networks.gan import GANConfig


def test_the_average_follows_the_weights() -> None:
    network = GANConfig().build_generator((1, 8, 8), 1)
    average = Average(network, 0.999)
    with torch.no_grad():
        network.paint[0].weight.fill_(1.0)
    average.update(network)  # decay 1/10 at first
    assert torch.allclose(average.network.paint[0].weight, torch.tensor(0.9), atol=0.1)
    for _ in range(100):
        average.update(network)
    assert torch.allclose(average.network.paint[0].weight, torch.tensor(1.0), atol=1e-3)


def test_buffers_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm2d(2)
    average = Average(network, 0.5)
    network(torch.full((4, 2, 3, 3), 10.0))  # the running mean goes from 0 to 1
    for _ in range(20):
        average.update(network)
    assert torch.allclose(average.network.running_mean, torch.tensor(1.0), atol=1e-4)
    assert average.network.num_batches_tracked == 1


def test_an_average_goes_on_from_its_state() -> None:
    network = nn.Linear(3, 2)
    first, second = Average(network, 0.9), Average(nn.Linear(3, 2), 0.9)
    first.update(network)
    second.load_state_dict(first.state_dict())
    nn.init.ones_(network.weight)
    for average in (first, second):
        average.update(network)
    assert torch.equal(first.network.weight, second.network.weight)
