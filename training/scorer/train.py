"""Training of the parts that belong to the scorer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from torch import nn

from services.inference.bundle import Bundle, Task, seal
from training.data import Dataset
from training.data.names import slug
from training.export.bundle import Export, export_bundle
from training.export.classifier import export_classifier
from training.export.generators import export_vae
from training.loops.classifier import train_cnn
from training.loops.defects import train_defects
from training.loops.run import Run, open_run
from training.loops.vae import train_vae
from training.scorer.components import Parts
from training.scorer.recipe import ScorerRecipe
from training.scorer.transformations import of_views

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

T = TypeVar("T")
OWN = "scorer"  # part of the names of bundles that are made for the scorer alone and not stored


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
    """The parts of a scorer of `dataset`; those that are not given are trained below the run's directory.

    Args:
        fabric: launched.
        dataset: for data without classes, a classifier of views is trained in place of `classifier`.
        recipe: the scorer's recipe.
        run: the run of the defect network.
        seed: decides weights, batches and the pasted pieces.
        resume: continue from checkpoints.
        classifier: of the classes of `dataset`; None for data without classes.
        generator: a VAE of the same images; None to train one.

    Raises:
        ValueError: the data have classes, and no classifier is given.
    """
    if dataset.class_names and classifier is None:
        raise ValueError(f"scorer: {dataset.name} has classes, so a classifier is needed; give --classifier")
    views = None
    if classifier is None:
        looked = of_views(dataset)
        of_them = _once(fabric, lambda: _open(run, "views", recipe.views, looked, seed, resume))
        network = train_cnn(fabric, looked, recipe.views, of_them, seed=seed)
        views = _once(
            fabric, lambda: _sealed(export_classifier, "classification", "cnn", network, looked, seed, of_them)
        )
    if generator is None:
        own = _once(fabric, lambda: _open(run, "vae", recipe.vae, dataset, seed, resume))
        vae = train_vae(fabric, dataset, recipe.vae, own, seed=seed)
        encode = partial(_sealed, export_vae, "generation", "vae")
        generator = _once(fabric, lambda: encode(vae, dataset, seed, own))
    defects = train_defects(fabric, dataset, recipe.defects, run, seed=seed)
    return Parts(generator, defects, classifier, views, recipe.coreset_size)


def _once(fabric: Fabric, make: Callable[[], T]) -> T:
    """The bundle that the first process writes, on every process: two processes must not write one bundle."""
    return cast(T, fabric.broadcast(make() if fabric.is_global_zero else None))


def _sealed(
    export: Export, task: Task, network: str, module: nn.Module, dataset: Dataset, seed: int, run: Run
) -> Bundle:
    """A bundle without metrics or gates, because only the scorer uses it, and the scorer has its own gates.

    For images of a texture, views look alike and a VAE is little better than the mean image; gates on them would fail,
    although the scorer works.
    """
    name = f"{slug(dataset.name)}-{OWN}-{network}"
    directory = run.directory / "bundles" / name
    bare = export_bundle(
        export,
        module,
        dataset,
        name=name,
        task=task,
        network=network,
        recipe="scorer",
        seed=seed,
        directory=directory,
        arithmetic=run.notes().get("arithmetic", ""),
    )
    return seal(bare.path, bare.manifest)


def _open(run: Run, name: str, recipe: object, dataset: Dataset, seed: int, resume: bool) -> Run:
    config = {"network": asdict(recipe), "dataset": dataset.name, "digest": dataset.digest, "seed": seed}  # type: ignore[call-overload]
    return open_run(run.directory, name, config, resume=resume)
