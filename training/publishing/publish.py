"""From trained weights to stored bundles: export, validate, gate, test, describe, seal, verify."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.inference import bundle
from training.data import Dataset
from training.data.names import slug
from training.evaluation import figures
from training.export.bundle import export_bundle
from training.loops.run import Run
from training.publishing.card import CARD, card
from training.publishing.gates import GateError, check
from training.publishing.kind import Kind, Product
from training.publishing.report import assess, validate


def publish(
    kind: Kind,
    module: Any,
    dataset: Dataset,
    *,
    recipe: str,
    seed: int,
    run_dir: Path,
    judge: bundle.Bundle | None = None,
    name: str | None = None,
) -> list[bundle.Bundle]:
    """Turn one trained network into sealed bundles below `run_dir`/bundles, one for each product of its kind.

    Products that are classifiers are made only of data with classes. The same weights and data give the same digests,
    at any time and in any directory.

    Args:
        kind: of the network.
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
    how: dict[str, Any] = {"recipe": recipe, "seed": seed, "bundles": bundles, "judge": judge}
    drafts = [
        (product, _draft(f"{prefix}-{product.name}", kind, product, module, dataset, **how))
        for product in kind.products
        if dataset.class_names or product.task != "classification"
    ]
    try:
        check([draft.manifest for _, draft in drafts])
    except GateError:
        for _, draft in drafts:
            (draft.path / CARD).write_text(card(draft, []))
        raise
    # Only now the test split: what misses a gate, and is trained again, is never measured on it.
    records = Run(run_dir, kind.name, {}).records()
    tested = [
        _tested(product, draft, dataset, judge, records if product is kind.products[0] else [])
        for product, draft in drafts
    ]
    return [_store(draft, bundles / draft.name) for draft in tested]


def _draft(
    name: str,
    kind: Kind,
    product: Product,
    module: Any,
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
    bare = export_bundle(
        product.export,
        module,
        dataset,
        name=name,
        task=product.task,
        network=kind.name,
        recipe=recipe,
        seed=seed,
        directory=staged,
        arithmetic=Run(bundles.parent, kind.name, {}).notes().get("arithmetic", ""),
        libraries=kind.libraries,
    )
    decided = product.gates(bare.manifest, validate(product, bare, dataset, judge=judge))
    return bundle.Bundle(staged, bare.manifest.model_copy(update={"gates": decided}))


def _tested(
    product: Product,
    draft: bundle.Bundle,
    dataset: Dataset,
    judge: bundle.Bundle | None,
    records: Sequence[Mapping[str, Any]],
) -> bundle.Bundle:
    """The draft with metrics of the test split, pictures and card: complete except for its digest."""
    metrics, drawn = assess(product, draft, dataset, draft.path, judge=judge)
    if records:
        drawn.append(figures.training_curves(records, draft.path / "training.png"))
    complete = bundle.Bundle(draft.path, draft.manifest.model_copy(update={"metrics": metrics}))
    judges = judge if draft.manifest.task == "generation" and dataset.class_names else None
    (draft.path / CARD).write_text(card(complete, drawn, judges))
    return complete


def _store(draft: bundle.Bundle, final: Path) -> bundle.Bundle:
    bundle.seal(draft.path, draft.manifest)
    shutil.rmtree(final, ignore_errors=True)
    draft.path.replace(final)
    return bundle.load(final)
