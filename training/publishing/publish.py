"""From trained weights to stored bundles: export, validate, gate, test, describe, seal, verify."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import nn

from services.inference import bundle
from training.data import Dataset
from training.data.names import slug
from training.data.seen import recorded
from training.evaluation import figures
from training.export.bayes import export_bayes
from training.export.classifier import export_classifier
from training.export.generators import export_conditional_vae, export_gan, export_vae
from training.loops.run import Run
from training.networks.conditional_vae import ConditionalVAE
from training.publishing.card import CARD, card
from training.publishing.gates import GateError, check, gates
from training.publishing.report import assess, validate
from training.scorer.components import Parts
from training.scorer.export import export_scorer

Network = Literal["logistic", "svm", "gru", "cnn", "vae", "cvae", "gan", "scorer"]

PRODUCTS: dict[Network, tuple[str, ...]] = {
    "logistic": ("logistic",),
    "svm": ("svm",),
    "gru": ("gru",),
    "cnn": ("cnn",),
    "vae": ("vae",),
    "cvae": ("cvae", "bayes"),
    "gan": ("gan",),
    "scorer": ("scorer",),
}
TASKS: dict[str, bundle.Task] = {
    "logistic": "classification",
    "svm": "classification",
    "gru": "classification",
    "cnn": "classification",
    "vae": "generation",
    "scorer": "anomaly",
    "cvae": "generation",
    "bayes": "classification",
    "gan": "generation",
}
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
SCIKIT_LEARN = ("scikit-learn", "skl2onnx")


def publish(
    network: Network,
    module: nn.Module | Parts,
    dataset: Dataset,
    *,
    recipe: str,
    seed: int,
    run_dir: Path,
    judge: bundle.Bundle | None = None,
    name: str | None = None,
) -> list[bundle.Bundle]:
    """Turn one trained network into sealed bundles below `run_dir`/bundles.

    A conditional VAE of data with classes gives two bundles, the VAE and a classifier.

    The same weights and data give the same digests, at any time and in any directory.

    Args:
        network: the name of the network.
        module: the network with its final weights (the generator, for a gan; the parts, for a scorer); left as it is.
        dataset: the data that it was trained with.
        recipe: the recipe's name, for the manifest.
        seed: the training seed, for the manifest.
        run_dir: the directory of the run.
        judge: a classifier of the same classes that judges a GAN's samples; without it they are not judged.
        name: replaces the data set's name in the names of the bundles.

    Raises:
        ExportError: a graph differs from PyTorch by more than its bound.
        GateError: validation figures missed their bounds; the staged directory with its card stays beside the
            bundles. The test split is not measured then.
        EvaluationError: data or judge do not fit the network.
    """
    bundles = run_dir / "bundles"
    prefix = slug(name or dataset.name)
    drafts = {
        suffix: _draft(
            f"{prefix}-{suffix}",
            suffix,
            network,
            module,
            dataset,
            recipe=recipe,
            seed=seed,
            bundles=bundles,
            judge=judge,
        )
        for suffix in PRODUCTS[network]
        if dataset.class_names or TASKS[suffix] != "classification"
    }
    try:
        check([draft.manifest for draft in drafts.values()])
    except GateError:
        for draft in drafts.values():
            (draft.path / CARD).write_text(card(draft, []))
        raise
    # Only now the test split: what misses a gate, and is trained again, is never measured on it.
    records = Run(run_dir, network, {}).records()
    first = PRODUCTS[network][0]
    tested = [_tested(draft, dataset, judge, records if suffix == first else []) for suffix, draft in drafts.items()]
    return [_store(draft, bundles / draft.name) for draft in tested]


def exported(
    product: str,
    network: Network,
    module: nn.Module | Parts,
    dataset: Dataset,
    *,
    name: str,
    recipe: str,
    seed: int,
    directory: Path,
    arithmetic: bundle.Arithmetic = "",
) -> bundle.Bundle:
    """A bundle of graphs in `directory` (created if needed), without metrics, card and digest."""
    directory.mkdir(parents=True, exist_ok=True)
    statistics: tuple[str, ...] = ()
    if isinstance(module, Parts):
        graphs, constants, statistics = export_scorer(module, dataset, directory)
    else:
        graphs, constants = _export(product, module, dataset, directory)
    channels, height, width = dataset.image_shape
    libraries = (*LIBRARIES, *SCIKIT_LEARN) if network in ("logistic", "svm") else LIBRARIES
    manifest = bundle.Manifest(
        name=name,
        task=TASKS[product],
        network=network,
        recipe=recipe,
        seed=seed,
        arithmetic=arithmetic,
        dataset=recorded(dataset),
        image=bundle.Image(channels=channels, height=height, width=width),
        class_names=dataset.class_names,
        latent_size=getattr(module, "latent_size", None) if TASKS[product] == "generation" else None,
        constants=constants,
        statistics=statistics,
        parts=module.digests if isinstance(module, Parts) else {},
        graphs=graphs,
        metrics={},
        versions={library: version(library) for library in libraries},
    )
    return bundle.Bundle(directory, manifest)


def _draft(
    name: str,
    product: str,
    network: Network,
    module: nn.Module | Parts,
    dataset: Dataset,
    *,
    recipe: str,
    seed: int,
    bundles: Path,
    judge: bundle.Bundle | None,
) -> bundle.Bundle:
    """A bundle with graphs and gates, beside its final directory."""
    staged = bundles / f".{name}.staged"
    shutil.rmtree(staged, ignore_errors=True)
    bare = exported(
        product,
        network,
        module,
        dataset,
        name=name,
        recipe=recipe,
        seed=seed,
        directory=staged,
        arithmetic=Run(bundles.parent, network, {}).notes().get("arithmetic", ""),
    )
    decided = gates(bare.manifest, validate(bare, dataset, judge=judge))
    return bundle.Bundle(staged, bare.manifest.model_copy(update={"gates": decided}))


def _tested(
    draft: bundle.Bundle, dataset: Dataset, judge: bundle.Bundle | None, records: Sequence[Mapping[str, Any]]
) -> bundle.Bundle:
    """The draft with metrics of the test split, pictures and card: complete except for its digest."""
    metrics, drawn = assess(draft, dataset, draft.path, judge=judge)
    if records:
        drawn.append(figures.training_curves(records, draft.path / "training.png"))
    complete = bundle.Bundle(draft.path, draft.manifest.model_copy(update={"metrics": metrics}))
    judges = judge if draft.manifest.task == "generation" and dataset.class_names else None
    (draft.path / CARD).write_text(card(complete, drawn, judges))
    return complete


def _export(
    product: str, module: nn.Module, dataset: Dataset, directory: Path
) -> tuple[dict[str, bundle.Graph], dict[str, float]]:
    if product == "cvae" and isinstance(module, ConditionalVAE):
        return export_conditional_vae(module, dataset, directory)
    if TASKS[product] == "classification":
        if isinstance(module, ConditionalVAE):
            return export_bayes(module, dataset, directory)
        return export_classifier(module, dataset, directory)
    exporter = {"vae": export_vae, "gan": export_gan}[product]
    return exporter(module, dataset, directory), {}


def _store(draft: bundle.Bundle, final: Path) -> bundle.Bundle:
    bundle.seal(draft.path, draft.manifest)
    shutil.rmtree(final, ignore_errors=True)
    draft.path.replace(final)
    return bundle.load(final)
