"""Training of what a scorer has for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar, cast

from lightning_fabric import Fabric
from torch import nn

from services.inference.bundle import Bundle, seal
from training.anomaly.parts import Parts
from training.anomaly.recipe import ScorerRecipe
from training.anomaly.views import of_views
from training.data import Dataset
from training.loops.cnn import train_cnn
from training.loops.defects import train_defects
from training.loops.vae import train_vae
from training.publish import Network, exported, slug
from training.run import Run, open_run

T = TypeVar("T")
OWN = "scorer"  # in the names of the bundles that are made for the scorer alone, and not stored


def train_scorer(
    fabric: Fabric,
    dataset: Dataset,
    recipe: ScorerRecipe,
    run: Run,
    *,
    seed: int,
    resume: bool,
    classifier: Bundle | None,
    generator: Bundle | None,
) -> Parts:
    """The parts of a scorer of `dataset`, those that are not given trained below the run's directory.

    Args:
        fabric: launched.
        dataset: without classes, a classifier of views is trained in place of `classifier`.
        recipe: how.
        run: of the defect network.
        seed: decides weights, batches and what is pasted.
        resume: go on from checkpoints.
        classifier: of the classes of `dataset`; None where it has none.
        generator: a VAE of the same images; None to train one.

    Raises:
        ValueError: the data have classes, and no classifier is given.
    """
    if dataset.class_names and classifier is None:
        raise ValueError(f"scorer: {dataset.name} has classes, but no classifier of them was given")
    views = None
    if classifier is None:
        looked = of_views(dataset)
        of_them = _once(fabric, lambda: _open(run, "views", recipe.views, looked, seed, resume))
        network = train_cnn(fabric, looked, recipe.views, of_them, seed=seed)
        views = _once(fabric, lambda: _sealed("cnn", network, looked, seed, of_them))
    if generator is None:
        own = _once(fabric, lambda: _open(run, "vae", recipe.vae, dataset, seed, resume))
        vae = train_vae(fabric, dataset, recipe.vae, own, seed=seed)
        generator = _once(fabric, lambda: _sealed("vae", vae, dataset, seed, own))
    defects = train_defects(fabric, dataset, recipe.defects, run, seed=seed)
    return Parts(generator, defects, classifier, views, recipe.looks)


def _once(fabric: Fabric, make: Callable[[], T]) -> T:
    """What the first process makes, on every process: two that write one bundle would spoil it."""
    return cast(T, fabric.broadcast(make() if fabric.is_global_zero else None))


def _sealed(network: Network, module: nn.Module, dataset: Dataset, seed: int, run: Run) -> Bundle:
    """A bundle without measurements or gates, for it only serves the scorer, which has gates of its own.

    Of a texture no view can be told from another, and no VAE beats the mean image by much: its scorer is as wanted.
    """
    name = f"{slug(dataset.name)}-{OWN}-{network}"
    directory = run.directory / "bundles" / name
    bare = exported(network, network, module, dataset, name=name, recipe="scorer", seed=seed, directory=directory)
    return seal(bare.path, bare.manifest)


def _open(run: Run, name: str, recipe: object, dataset: Dataset, seed: int, resume: bool) -> Run:
    config = {"network": asdict(recipe), "dataset": dataset.name, "digest": dataset.digest, "seed": seed}  # type: ignore[call-overload]
    return open_run(run.directory, name, config, resume=resume)
