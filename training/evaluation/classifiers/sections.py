"""The chapters of a classifier's report after its metrics: mistakes, robustness, explanations; each with pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.arrays import evenly_spaced
from training.evaluation import figures
from training.evaluation.classifiers import explanations, robustness
from training.evaluation.shifts.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.graphs.inference import predict

MISTAKES = 20
CORRUPTED = 500  # test images by default; the standard error of an accuracy is then at most 2.3 points
ATTACKED = 200
EXPLAINED = 200


def chapters(bundle: Bundle, dataset: Dataset, directory: Path, *, full: bool) -> list[str]:
    """Markdown, with pictures written into `directory`.

    Args:
        bundle: a classifier.
        dataset: labelled data that fit it.
        directory: where the report is.
        full: corrupt every test image, and add attacks and the checks of explanations: minutes, not seconds.
    """
    written = [_mistakes(bundle, dataset, directory)]
    written.append(_corruptions(bundle, dataset.test if full else _some(dataset.test, CORRUPTED), directory))
    if not full:
        return [*written, "`--full` corrupts every test image, and adds attacks and checks of the explanations."]
    written.append(_attacks(bundle, _some(dataset.test, ATTACKED), directory))
    written.append(_explanations(bundle, _some(dataset.test, EXPLAINED), directory))
    return written


def _mistakes(bundle: Bundle, dataset: Dataset, directory: Path) -> str:
    images, labels = dataset.test.images, _labels(dataset.test)
    probabilities = predict(bundle, images)["probabilities"]
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    if not len(wrong):
        return "## Worst mistakes\n\nNone: every test image is classified correctly."
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    names = dataset.class_names
    captions = [f"{names[labels[i]]} as {names[predicted[i]]}\n{probabilities[i, predicted[i]]:.1%}" for i in worst]
    figures.captioned(images[worst], captions, directory / "mistakes.png")
    caption = (
        f"{len(wrong)} of {len(images):,} test images are misclassified. Shown are the most confident mistakes: true "
        "class as predicted class."
    )
    return f"## Worst mistakes\n\n![{caption}](mistakes.png)\n\n{caption}"


def _corruptions(bundle: Bundle, test: Split, directory: Path) -> str:
    rows = robustness.under_corruptions(bundle, test.images, _labels(test))
    one = test.images[:1]
    examples = np.concatenate(
        [image for name in CORRUPTIONS for image in (one, *(corrupt(one, name, severity) for severity in SEVERITIES))]
    )
    names = [name.replace("_", " ") for name in CORRUPTIONS]
    figures.image_grid(examples, 1 + len(SEVERITIES), directory / "corruptions.png", names)
    _curves(rows, "severity", [0, *SEVERITIES], directory / "robustness.png")
    return _chapter(
        "Robustness to corruptions",
        f"{len(test):,} test images, corrupted in six ways at severities 1 to 5 (defined in "
        "training/evaluation/shifts/corruptions.py); 0 is without corruption. No robustness is claimed beyond this "
        "table.",
        robustness.markdown(rows, "severity", SEVERITIES),
        "![Accuracy and calibration error by severity.](robustness.png)",
        "![One test image: each corruption at severity 0 to 5.](corruptions.png)",
    )


def _attacks(bundle: Bundle, test: Split, directory: Path) -> str:
    from training.evaluation.classifiers.attacks import EPSILONS, STEPS  # noqa: PLC0415  (torch takes seconds to import)
    from training.graphs.gradient import NoGradientError  # noqa: PLC0415

    title = "Robustness to attacks"
    try:
        rows = robustness.under_attacks(bundle, test.images, _labels(test))
    except NoGradientError as error:
        return _chapter(title, f"Not measured: {error}.")
    _curves(rows, "epsilon, grey levels of 255", [0, *EPSILONS], directory / "attacks.png")
    return _chapter(
        title,
        f"{len(test):,} test images. Each attack changes a pixel by at most epsilon of 255 grey levels along the "
        f"gradient of the classifier: FGSM in one step, PGD in {STEPS} steps from one random start. Gradients are "
        "computed from the exported graph, and accuracy is measured on it. A stronger attack can only lower the "
        "accuracy; no robustness is claimed.",
        robustness.markdown(rows, "epsilon", EPSILONS),
        "![Accuracy and calibration error by epsilon.](attacks.png)",
    )


def _explanations(bundle: Bundle, test: Split, directory: Path) -> str:
    checked = explanations.check(bundle, test.images)
    panels = {
        "deletion: probability of the class": {name: one.deletion for name, one in checked.items()},
        "insertion: probability of the class": {name: one.insertion for name, one in checked.items()},
    }
    figures.curves(explanations.SHARES, panels, "share of the pixels", directory / "explanations.png")
    return _chapter(
        "Checks of the explanations",
        f"{len(test):,} test images, explained for their predicted class. Deletion and insertion (Petsiuk et al., "
        "2018) are the area under the probability of the class while the most important pixels are hidden first, or "
        "shown first. The correlation is the sanity check of Adebayo et al. (2018): the rank correlation with the map "
        "of the same graph with shuffled weights. It is 1 for a map that does not depend on the learned weights. "
        "Three maps do not use the classifier: ink (the distance from the background), centre (a blob) and random "
        f"numbers. `beats` names those that a map beats on both curves by more than {explanations.CLEARLY} standard "
        "errors of the difference. Figures are means ± standard errors.",
        explanations.markdown(checked),
        "![Deletion and insertion curves of each map.](explanations.png)",
    )


def _curves(rows: robustness.Rows, axis: str, strengths: list[int], path: Path) -> None:
    shown = {name.replace("_", " "): row for name, row in rows.items()}
    panels = {
        "accuracy": {name: np.array([one.accuracy for one in row]) for name, row in shown.items()},
        "ECE": {name: np.array([one.ece for one in row]) for name, row in shown.items()},
    }
    figures.curves(np.array(strengths), panels, axis, path)


def _chapter(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _some(test: Split, count: int) -> Split:
    return test.take(evenly_spaced(len(test), count))


def _labels(test: Split) -> np.ndarray:
    if test.labels is None:
        raise ValueError("the data have no labels; a classifier's report needs labelled data")
    return test.labels
