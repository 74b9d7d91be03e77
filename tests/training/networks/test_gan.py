import pytest
import torch

from training.networks.gan import GANConfig


@pytest.mark.parametrize(
    ("image_shape", "generator_parameters", "discriminator_parameters"),
    [((1, 28, 28), 493_856, 249_729), ((3, 32, 32), 620_000, 252_033)],
)
def test_parameters_and_shapes(
    image_shape: tuple[int, int, int], generator_parameters: int, discriminator_parameters: int
) -> None:
    generator = GANConfig().build_generator(image_shape, 10)
    discriminator = GANConfig().build_discriminator(image_shape, 10)
    assert sum(weight.numel() for weight in generator.parameters()) == generator_parameters
    assert sum(weight.numel() for weight in discriminator.parameters()) == discriminator_parameters
    labels = torch.arange(4)
    pixels = generator(torch.randn(4, generator.latent_size), labels)
    assert pixels.shape == (4, *image_shape)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert discriminator(pixels, labels).shape == (4,)


@pytest.mark.parametrize("side", [8, 12, 20, 64])
def test_any_side_divisible_by_four(side: int) -> None:
    image_shape, labels = (3, side, side), torch.zeros(2, dtype=torch.int64)
    pixels = GANConfig().build_generator(image_shape, 1)(torch.randn(2, 64), labels)
    assert pixels.shape == (2, *image_shape)
    assert GANConfig().build_discriminator(image_shape, 1)(pixels, labels).shape == (2,)


@pytest.mark.parametrize("image_shape", [(1, 28, 32), (1, 30, 30)])
def test_other_sides_are_refused(image_shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="divisible by 4"):
        GANConfig().build_generator(image_shape, 10)


def test_every_layer_of_the_discriminator_has_spectral_norm_one() -> None:
    torch.manual_seed(0)
    discriminator = GANConfig().build_discriminator((1, 28, 28), 10)
    for _ in range(200):  # each forward pass is one step of the power iteration
        discriminator(torch.rand(2, 1, 28, 28), torch.arange(2))
    layers = [module for module in discriminator.modules() if hasattr(module, "parametrizations")]
    assert len(layers) == 8
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)
