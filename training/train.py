"""From a data set and a recipe to bundles: train each network in turn, then publish it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.seen import TRUSTED, require_apart
from training.evaluation.figures import training_curves
from training.kinds import KINDS
from training.loops.launch import launch
from training.loops.processes import ending_together
from training.loops.progress import write
from training.loops.run import Run, open_run, require_no_checkpoint
from training.publishing.kind import Given, Kind, Role
from training.publishing.publish import publish
from training.recipes import Recipe

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric


def train(
    dataset: Dataset,
    recipe: Recipe,
    networks: Sequence[str],
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
    """Train and publish, in the order of `KINDS`: what others are trained with comes before them.

    The CNN judges the GAN's samples where no other judge is given. The scorer is put together from the classifier and
    the VAE.

    Args:
        dataset: without labels, the CNN is left out.
        recipe: how each network is trained.
        networks: names in `KINDS`, in any order.
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
    given: dict[Role, Bundle | None] = {"judge": judge, "classifier": classifier, "generator": generator}
    doubtful: set[str] = set()
    for role, bundle in given.items():
        users = {network for network in networks if KINDS[network].takes(role)}
        if bundle is not None and users and require_apart(f"--{role}", bundle, dataset, trusted=trust_parts):
            doubtful |= users
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
    networks: Sequence[str],
    *,
    seed: int,
    parent: Path,
    resume: bool,
    given: Given,
    doubtful: Set[str],
) -> list[Bundle]:
    bundles: list[Bundle] = []
    asked = given
    table = Table(
        "bundle", "gate", "validation", "bound", "minutes", title=f"{dataset.name}, recipe {recipe.name}, seed {seed}"
    )
    for network, kind in KINDS.items():
        if network not in networks:
            continue
        reason = _left_out(kind, dataset, recipe)
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
                kind, module, dataset, recipe=how.name, seed=seed, run_dir=parent / network, judge=given["judge"]
            )
            bundles += published
        parts = fabric.broadcast(published)  # every process trains the scorer with them
        given = {**given, **{role: asked[role] or parts[0] for role in kind.becomes}}
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
    network: str,
    dataset: Dataset,
    recipe: Recipe,
    *,
    parent: Path,
    seed: int,
    resume: bool,
    given: Given | None = None,
) -> Any:
    """Train one network in its run directory, and draw its losses; fp32, on the CPU, in eval mode.

    `given` are bundles that it is trained with: the GAN's `judge`, the scorer's `classifier` and `generator`.

    The CPU minutes of this process, over all interruptions, are written into the run's notes.
    """
    kind, how, given = KINDS[network], recipe.for_dataset(dataset.name).networks[network], given or {}
    config = {
        "recipe": recipe.name,
        "network": asdict(how),
        "dataset": dataset.name,
        "digest": dataset.digest,
        "seed": seed,
    }
    if kind.parts:  # another classifier is another scorer
        config["parts"] = {role: bundle.digest for role, bundle in given.items() if bundle and role in kind.parts}
    opened = open_run(parent, network, config, resume=resume) if fabric.is_global_zero else None
    run = cast(Run, fabric.broadcast(opened))
    minutes, start = run.notes().get("cpu_minutes", 0.0), time.process_time()
    try:
        module = kind.fit(fabric, dataset, how, run, seed=seed, resume=resume, given=given)
    finally:
        minutes += (time.process_time() - start) / 60
        if fabric.is_global_zero:
            run.note(cpu_minutes=round(minutes, 2))
    if fabric.is_global_zero:
        if records := run.records():  # scikit-learn's fits log none
            training_curves(records, run.pictures / "loss.png")
        write(f"{network}: trained in {minutes:.1f} CPU minutes")
    return module


def _left_out(kind: Kind, dataset: Dataset, recipe: Recipe) -> str | None:
    """Why a network of that kind is not trained, if it is not."""
    if kind.labelled and not dataset.class_names:
        return f"{dataset.name} has no labels to learn"
    if kind.name not in recipe.for_dataset(dataset.name).networks:
        return f"recipe {recipe.name} has none"
    return None
