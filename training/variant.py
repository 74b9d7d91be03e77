"""A recipe's classifier with one thing changed: where its weights start, whether its images are augmented."""

from __future__ import annotations

from dataclasses import replace

from services.inference import registry
from training.recipes import Recipe
from training.transfer import transfer


def variant(recipe: Recipe, dataset: str, *, source: str | None, frozen: bool, augmented: bool) -> Recipe:
    """The recipe without its other networks; its name goes on with the options that make it: cards quote it.

    Args:
        recipe: one with a CNN.
        dataset: name of the data set.
        source: stored classifier to start from, NAME or NAME:VERSION; random weights without it.
        frozen: with a source, train the last layer alone.
        augmented: as in the recipe; else images stay as they are.

    Raises:
        BundleError: there is no such bundle, or it does not verify.
        ValueError: the recipe has no CNN, `source` is no residual network, or there is nothing to freeze.
    """
    cnn, name = recipe.on(dataset).cnn, recipe.name
    if cnn is None:
        raise ValueError(f"--recipe {name}: has no CNN to change; use demo, classic or reference")
    if frozen and source is None:
        raise ValueError("--freeze: there is nothing to freeze in random weights; name a classifier with --from")
    if source is not None:
        cnn = transfer(cnn, source, frozen=frozen)
        name += f" --from {registry.find(source).tag}" + (" --freeze" if frozen else "")
    if not augmented:
        cnn = replace(cnn, augment=None)
        name += " --no-augment"
    return Recipe(name=name, cnn=cnn)
