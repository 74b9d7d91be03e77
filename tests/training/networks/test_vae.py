import pytest
import torch

from training.networks.vae import VAEConfig


@pytest.mark.parametrize(
    ("config", "image_shape", "parameters"),
    [
        (VAEConfig(latent_size=2), (1, 28, 28), 404_244),
        (VAEConfig(latent_size=16), (1, 28, 28), 415_024),
        (VAEConfig(latent_size=2), (3, 32, 32), 1_577_988),
    ],
)
def test_parameters_and_shapes(config: VAEConfig, image_shape: tuple[int, int, int], parameters: int) -> None:
    network = config.build(image_shape)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network.latent_size == config.latent_size
    mean, log_variance = network.encode(torch.rand(5, *image_shape))
    assert mean.shape == log_variance.shape == (5, config.latent_size)
    assert network.decode(mean).shape == (5, *image_shape)


def test_forward_draws_around_the_mean() -> None:
    torch.manual_seed(0)
    network = VAEConfig().build((1, 28, 28))
    x = torch.rand(1, 1, 28, 28)
    first, mean, _ = network(x)
    second, same_mean, _ = network(x)
    assert torch.equal(mean, same_mean)
    assert not torch.equal(first, second)
