import pytest
import torch
from torch import nn

from training.loops.ema import ExponentialMovingAverage


def test_the_average_follows_the_weights_from_the_first_step_on() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = ExponentialMovingAverage(network, half_life=64_000, batch_size=64)
    nn.init.ones_(network.weight)
    expected = 0.0
    for step in range(50):
        average.update_parameters(network)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + 1 - decay
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5), step


@pytest.mark.parametrize("batch_size", [32, 128])
def test_an_influence_is_half_as_large_a_half_life_later(batch_size: int) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(network, half_life=256, batch_size=batch_size)
    average.n_averaged.fill_(10_000)
    nn.init.ones_(average.module.weight)
    nn.init.zeros_(network.weight)
    for _ in range(256 // batch_size):
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_buffers_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm2d(2)
    average = ExponentialMovingAverage(network, half_life=64, batch_size=64)
    network(torch.full((4, 2, 3, 3), 10.0))  # the running mean goes from 0 to 1
    for _ in range(20):
        average.update_parameters(network)
    assert torch.allclose(average.module.running_mean, torch.tensor(1.0), atol=1e-4)
    assert average.module.num_batches_tracked == 1


def test_an_average_goes_on_from_its_state() -> None:
    network = nn.Linear(3, 2)
    first, second = (ExponentialMovingAverage(one, half_life=400, batch_size=64) for one in (network, nn.Linear(3, 2)))
    first.update_parameters(network)
    second.load_state_dict(first.state_dict())
    nn.init.ones_(network.weight)
    for average in (first, second):
        average.update_parameters(network)
    assert torch.equal(first.module.weight, second.module.weight)
