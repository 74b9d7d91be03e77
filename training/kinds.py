"""The table of kinds: a row for each network that can be trained, with all that the other modules know of it.

The command line, training, publishing, reports and gates read it. No other module lists networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.inference.bundle import Bundle, Manifest
from training.data import Dataset
from training.data.arrays import Array
from training.evaluation.classifiers import assess as classifiers
from training.evaluation.classifiers.sections import chapters
from training.evaluation.generators import assess as generators
from training.evaluation.generators.collapse import CollapseMonitor
from training.evaluation.generators.elbo import has_likelihood
from training.evaluation.generators.likelihood import likelihood_metrics
from training.evaluation.generators.samplers import samplers_metrics
from training.evaluation.scorers import assess as scorers
from training.evaluation.scorers.sections import scorer_chapters
from training.evaluation.shifts.sets import other_data
from training.export.bayes import export_bayes
from training.export.bundle import LIBRARIES, SCIKIT_LEARN
from training.export.classifier import export_classifier
from training.export.generators import export_conditional_vae, export_gan, export_vae
from training.loops.classifier import train_cnn
from training.loops.conditional_vae import train_conditional_vae
from training.loops.estimators import fit_logistic, fit_svm
from training.loops.gan import train_gan
from training.loops.run import Run
from training.loops.vae import train_vae
from training.publishing import gates
from training.publishing.kind import Fit, Given, Kind, Product
from training.scorer.export import export_scorer
from training.scorer.train import train_scorer
from training.scorer.weights import weighted

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

DRAWS = 1000  # of z an image, for the likelihood of every test image


def alone(loop: Callable[..., Any]) -> Fit:
    """A loop that takes no stored bundle."""

    def fit(fabric: Fabric, dataset: Dataset, recipe: Any, run: Run, *, seed: int, resume: bool, given: Given) -> Any:
        return loop(fabric, dataset, recipe, run, seed=seed)

    return fit


def estimator(function: Callable[..., Any]) -> Fit:
    """A classifier of scikit-learn, which has neither epochs nor checkpoints."""

    def fit(fabric: Fabric, dataset: Dataset, recipe: Any, run: Run, *, seed: int, resume: bool, given: Given) -> Any:
        return function(dataset, recipe)

    return fit


def _gan(fabric: Fabric, dataset: Dataset, recipe: Any, run: Run, *, seed: int, resume: bool, given: Given) -> Any:
    judge = given.get("judge")
    watched = judge is not None and dataset.class_names and fabric.is_global_zero
    monitor = CollapseMonitor(dataset, judge) if judge is not None and watched else None
    return train_gan(fabric, dataset, recipe, run, seed=seed, monitor=monitor)


def _scorer(fabric: Fabric, dataset: Dataset, recipe: Any, run: Run, *, seed: int, resume: bool, given: Given) -> Any:
    classifier, generator = given.get("classifier"), given.get("generator")
    return train_scorer(
        fabric, dataset, recipe, run, seed=seed, resume=resume, classifier=classifier, generator=generator
    )


def _classifier_chapters(
    bundle: Bundle, dataset: Dataset, out: Path, *, full: bool, data_dir: Path | None
) -> list[str]:
    return chapters(bundle, dataset, out, full=full)


def _scorer_chapters(bundle: Bundle, dataset: Dataset, out: Path, *, full: bool, data_dir: Path | None) -> list[str]:
    def fusion(statistics: Array) -> Array:
        return weighted(statistics, bundle.manifest.statistics)

    return scorer_chapters(bundle, dataset, out, full=full, other=other_data(dataset, data_dir), fusion=fusion)


def _every_likelihood(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    if not has_likelihood(bundle):
        return {}
    return likelihood_metrics(bundle, dataset.test.images, samples=DRAWS, progress="bounding the likelihood")


def _samplers(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    return {} if judge is None else samplers_metrics(bundle, dataset, judge, progress="driving chains")


CNN = Product(
    "cnn", "classification", ("classify",), export_classifier,
    validate=classifiers.validate, assess=classifiers.assess, gates=gates.classifier_gates,
    chapters=_classifier_chapters,
)  # fmt: skip
BASELINE = replace(CNN, gates=gates.baseline_gates)
BAYES = replace(CNN, name="bayes", graphs=("classify", "log_joint"), export=export_bayes)
VAE = Product(
    "vae", "generation", ("encode", "decode"), export_vae,
    validate=generators.validate_vae, assess=generators.vae, gates=gates.vae_gates,
)  # fmt: skip
CVAE = Product(
    "cvae", "generation", ("encode", "prior", "decode"), export_conditional_vae,
    validate=generators.validate_conditional_vae, assess=generators.conditional_vae,
    gates=gates.conditional_vae_gates, full_metrics=_every_likelihood,
)  # fmt: skip
GAN = Product(
    "gan", "generation", ("decode",), export_gan,
    validate=generators.validate_gan, assess=generators.gan, gates=gates.gan_gates, full_metrics=_samplers,
)  # fmt: skip
SCORER = Product(
    "scorer", "anomaly", ("score",), export_scorer,
    validate=scorers.validate, assess=scorers.assess, gates=gates.scorer_gates, chapters=_scorer_chapters,
)  # fmt: skip

# In the order of training: the CNN judges samples and is part of the scorer, which is made last.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("cnn", alone(train_cnn), (CNN,), labelled=True, becomes=("judge", "classifier")),
        Kind(
            "logistic", estimator(fit_logistic), (replace(BASELINE, name="logistic"),), labelled=True,
            libraries=LIBRARIES + SCIKIT_LEARN,
        ),
        Kind(
            "svm", estimator(fit_svm), (replace(BASELINE, name="svm"),), labelled=True,
            libraries=LIBRARIES + SCIKIT_LEARN,
        ),
        Kind("gru", alone(train_cnn), (replace(BASELINE, name="gru"),), labelled=True),
        Kind("vae", alone(train_vae), (VAE,), judged=True, becomes=("generator",)),
        Kind("cvae", alone(train_conditional_vae), (CVAE, BAYES), judged=True, becomes=("generator",)),
        Kind("gan", _gan, (GAN,), judged=True),
        Kind("scorer", _scorer, (SCORER,), parts=("classifier", "generator")),
    )
}  # fmt: skip


def product_of(manifest: Manifest) -> Product:
    """The product that a stored bundle is.

    A bundle whose network has no row, of an older version or of another origin, is the product of the same task whose
    graphs have the most similar names.

    Raises:
        ValueError: no kind has a product of that task.
    """
    kind = KINDS.get(manifest.network)
    own = [product for product in kind.products if product.task == manifest.task] if kind else []
    every = own or [product for kind in KINDS.values() for product in kind.products if product.task == manifest.task]
    if not every:
        raise ValueError(f"{manifest.name} is a bundle for {manifest.task}, which training has no kind of network for")
    return min(every, key=lambda product: len(set(product.graphs) ^ set(manifest.graphs)))
