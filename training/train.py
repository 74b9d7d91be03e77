"""From a data set and a recipe to bundles: train each network in turn, then publish it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.table import Table
from torch import nn

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.seen import TRUSTED, require_apart
from training.evaluation.figures import training_curves
from training.loops.classifier import train_cnn
from training.loops.conditional_vae import train_conditional_vae
from training.loops.estimators import fit_logistic, fit_svm
from training.loops.gan import train_gan
from training.loops.launch import launch
from training.loops.processes import ending_together
from training.loops.progress import write
from training.loops.run import Run, open_run, require_no_checkpoint
from training.loops.vae import train_vae
from training.publishing.publish import TASKS, Network, publish
from training.recipes import Recipe
from training.scorer.components import Parts
from training.scorer.train import train_scorer

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

NETWORKS: tuple[Network, ...] = ("logistic", "svm", "gru", "cnn", "vae", "cvae", "gan", "scorer")
USERS: dict[str, set[Network]] = {"judge": {"vae", "cvae", "gan"}, "classifier": {"scorer"}, "generator": {"scorer"}}


def train(
    dataset: Dataset,
    recipe: Recipe,
    networks: Sequence[Network],
    *,
    seed: int,
    out: Path,
    resume: bool,
    accelerator: str = "auto",
    devices: int = 1,
    judge: Bundle | None = None,
    classifier: Bundle | None = None,
    generator: Bundle | None = None,
    trust_parts: bool = False,
) -> list[Bundle]:
    """Train and publish; the CNN comes first, for it judges the GAN's samples where no other judge is given.

    The scorer comes last, for it is put together from the classifier and the VAE.

    Args:
        dataset: without labels, the CNN is left out.
        recipe: how each network is trained.
        networks: which, in any order.
        seed: decides weights, batches and noise.
        out: parent of the run directory `<dataset>-<recipe>-<seed>`.
        resume: continue interrupted runs; finished ones are only published again.
        accelerator: auto, cpu, cuda or mps.
        devices: processes on this machine, unless torchrun has started them already.
        judge: a stored classifier that watches the GAN's samples for a collapse, and chooses its best epoch.
        classifier: the scorer's; left out, the CNN that is trained with it.
        generator: the scorer's VAE; left out, one that is trained with it, the conditional one by preference.
        trust_parts: take a judge, classifier or generator that may have seen images of the calibration or test split;
            the recipe of what is made with it then ends in `--trust-parts`.

    Returns:
        The bundles, on the first process; none on the others.

    Raises:
        SeenError: one of them may have seen such images.
        RunError: the run directory holds another run, or a checkpoint without `resume`, or a damaged one.
        TrainingError: a loss is not finite.
        ProcessError: another process failed; the message says why.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
    """
    given = {"judge": judge, "classifier": classifier, "generator": generator}
    doubtful = {
        network
        for role, bundle in given.items()
        if bundle is not None and not USERS[role].isdisjoint(networks)
        if require_apart(f"--{role}", bundle, dataset, trusted=trust_parts)
        for network in USERS[role]
    }
    parent = run_parent(out, dataset, recipe, seed)
    for network in networks if not resume else ():
        require_no_checkpoint(parent / network)  # of all of them, before the first is trained
    fabric = launch(accelerator, devices)
    with ending_together(fabric):
        return _train(
            fabric, dataset, recipe, networks, seed=seed, parent=parent, resume=resume, given=given, doubtful=doubtful
        )


def _train(
    fabric: Fabric,
    dataset: Dataset,
    recipe: Recipe,
    networks: Sequence[Network],
    *,
    seed: int,
    parent: Path,
    resume: bool,
    given: dict[str, Bundle | None],
    doubtful: Set[Network],
) -> list[Bundle]:
    bundles: list[Bundle] = []
    chosen = given["generator"] is not None
    table = Table(
        "bundle", "gate", "validation", "bound", "minutes", title=f"{dataset.name}, recipe {recipe.name}, seed {seed}"
    )
    for network in (name for name in NETWORKS if name in networks):
        reason = _left_out(network, dataset, recipe)
        if reason:
            if fabric.is_global_zero:
                write(f"{network}: left out, for {reason}")
            continue
        start = time.perf_counter()
        how = replace(recipe, name=recipe.name + TRUSTED) if network in doubtful else recipe
        module = fit(fabric, network, dataset, how, parent=parent, seed=seed, resume=resume, given=given)
        published: list[Bundle] = []
        if fabric.is_global_zero:
            published = publish(
                network, module, dataset, recipe=how.name, seed=seed, run_dir=parent / network, judge=given["judge"]
            )
            bundles += published
        parts = fabric.broadcast(published)  # every process trains the scorer with them
        if network == "cnn":
            given |= {role: given[role] or parts[0] for role in ("judge", "classifier")}
        elif network in ("vae", "cvae") and not chosen:
            given["generator"] = parts[0]
        minutes = f"{(time.perf_counter() - start) / 60:.1f}"
        for bundle in published:
            for gate in bundle.manifest.gates:
                bound = f"{gate.direction} {gate.bound:.4g}"
                table.add_row(bundle.name, gate.metric, f"{gate.value:.4g}", bound, minutes)
    if fabric.is_global_zero:
        Console().print(table)
    return bundles


def run_parent(out: Path, dataset: Dataset, recipe: Recipe, seed: int) -> Path:
    """Where the runs of all networks of one training are."""
    return out / f"{dataset.name}-{re.sub('[ :-]+', '-', recipe.name)}-{seed}"


def fit(
    fabric: Fabric,
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    parent: Path,
    seed: int,
    resume: bool,
    given: Mapping[str, Bundle | None] | None = None,
) -> nn.Module | Parts:
    """Train one network in its run directory, and draw its losses; fp32, on the CPU, in eval mode.

    `given` are bundles that it is trained with: the GAN's `judge`, the scorer's `classifier` and `generator`.

    The CPU minutes of this process, over all interruptions, are written into the run's notes.
    """
    how, given = getattr(recipe.for_dataset(dataset.name), network), given or {}
    config = {
        "recipe": recipe.name,
        "network": asdict(how),
        "dataset": dataset.name,
        "digest": dataset.digest,
        "seed": seed,
    }
    if network == "scorer":  # another classifier is another scorer
        config["parts"] = {role: bundle.digest for role, bundle in given.items() if bundle and role != "judge"}
    opened = open_run(parent, network, config, resume=resume) if fabric.is_global_zero else None
    run = cast(Run, fabric.broadcast(opened))
    minutes, start = run.notes().get("cpu_minutes", 0.0), time.process_time()
    module: nn.Module | Parts
    try:
        if network == "logistic":
            module = fit_logistic(dataset, how)
        elif network == "svm":
            module = fit_svm(dataset, how)
        elif network in ("cnn", "gru"):
            module = train_cnn(fabric, dataset, how, run, seed=seed)
        elif network == "vae":
            module = train_vae(fabric, dataset, how, run, seed=seed)
        elif network == "cvae":
            module = train_conditional_vae(fabric, dataset, how, run, seed=seed)
        elif network == "gan":
            module = train_gan(fabric, dataset, how, run, seed=seed, judge=given.get("judge"))
        else:
            parts = {role: given.get(role) for role in ("classifier", "generator")}
            module = train_scorer(fabric, dataset, how, run, seed=seed, resume=resume, **parts)
    finally:
        minutes += (time.process_time() - start) / 60
        if fabric.is_global_zero:
            run.note(cpu_minutes=round(minutes, 2))
    if fabric.is_global_zero:
        if records := run.records():  # scikit-learn's fits log none
            training_curves(records, run.pictures / "loss.png")
        write(f"{network}: trained in {minutes:.1f} CPU minutes")
    return module


def _left_out(network: Network, dataset: Dataset, recipe: Recipe) -> str | None:
    """Why `network` is not trained, if it is not."""
    if TASKS[network] == "classification" and not dataset.class_names:
        return f"{dataset.name} has no labels to learn"
    if getattr(recipe.for_dataset(dataset.name), network) is None:
        return f"recipe {recipe.name} has none"
    return None
