"""A variant of a recipe's classifier: with transferred weights, or without augmentation."""

from __future__ import annotations

from dataclasses import replace

from services.inference import registry
from training.recipes import Recipe
from training.recipes.transfer import transfer


def variant(recipe: Recipe, dataset: str, *, source: str | None, frozen: bool, augmented: bool) -> Recipe:
    """The recipe with only its classifier; its name includes the options, because cards quote it.

    Args:
        recipe: one with a CNN.
        dataset: name of the data set.
        source: stored classifier to start from, NAME or NAME:VERSION; without it, weights are random.
        frozen: with a source, train only the last layer.
        augmented: augment as in the recipe, or not at all.

    Raises:
        BundleError: there is no such bundle, or it does not verify.
        ValueError: the recipe has no CNN, `source` is no residual network, or there is nothing to freeze.
    """
    cnn, name = recipe.for_dataset(dataset).networks.get("cnn"), recipe.name
    if cnn is None:
        raise ValueError(f"--recipe {name} has no CNN to change; give demo, classic or reference")
    if frozen and source is None:
        raise ValueError("--freeze: there is nothing to freeze in random weights; name a classifier with --from")
    if source is not None:
        cnn = transfer(cnn, source, frozen=frozen)
        name += f" --from {registry.find(source).tag}" + (" --freeze" if frozen else "")
    if not augmented:
        cnn = replace(cnn, augment=None)
        name += " --no-augment"
    return Recipe(name, {"cnn": cnn})
