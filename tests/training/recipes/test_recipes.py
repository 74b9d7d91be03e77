from dataclasses import FrozenInstanceError

import pytest

from training.networks.cnn import CNNConfig
from training.networks.vae import VAEConfig
from training.recipes import RECIPES


def test_recipes_are_found_by_their_names() -> None:
    assert list(RECIPES) == ["baselines", "classic", "demo", "reference"]
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["classic"].networks["cnn"].epochs = 1  # type: ignore[misc]


def test_classic_is_the_textbook() -> None:
    classic = RECIPES["classic"]
    assert classic.networks["cnn"].network == CNNConfig(channels=(32, 64), hidden=64)
    assert classic.networks["vae"].network == VAEConfig(latent_size=2, hidden=256)
    for recipe in (classic.networks["cnn"], classic.networks["vae"]):
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (10, 128, 1e-3)


@pytest.mark.parametrize("name", ["classic", "demo", "reference"])
def test_a_scorer_has_all_that_it_needs_without_a_classifier_or_vae(name: str) -> None:
    scorer = RECIPES[name].networks["scorer"]
    assert scorer is not None
    networks = [
        scorer.defects.network.build((1, 28, 28)),
        scorer.vae.network.build((1, 28, 28)),
        scorer.views.network.build((1, 28, 28), 16),
    ]
    sizes = [4 * sum(weight.numel() for weight in network.parameters()) for network in networks]
    assert max(sizes) < 2e6
    assert scorer.coreset_size >= 100
    # A mirrored image is another view: what is told apart must not be done at random as well.
    assert "Flip" not in repr(scorer.views.augment)
    assert scorer.views.patience is None
    assert "scorer" not in RECIPES["baselines"].networks


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32)])
def test_every_graph_is_about_a_megabyte_for_grey_digits(name: str, image_shape: tuple[int, int, int]) -> None:
    recipe = RECIPES[name]
    classifiers = [recipe.networks[how] for how in ("cnn", "gru") if how in recipe.networks]
    networks = [how.network.build(image_shape, 10) for how in classifiers]
    gan = recipe.networks.get("gan")
    generators = [gan.network.build_generator(image_shape, 10)] if gan else []
    if name != "reference":
        networks += generators
    for network in networks:
        assert 4 * sum(weight.numel() for weight in network.parameters()) < 1.4e6
    if "cvae" in recipe.networks:
        generators.append(recipe.networks["cvae"].network.build(image_shape, 10))
    for generator in generators:
        assert 4 * sum(weight.numel() for weight in generator.parameters()) < 4e6
