"""The chapters of a classifier's report beyond its metrics: mistakes, robustness, explanations; each with pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.evaluation import explanations, pictures, robustness
from training.evaluation.classification import predict
from training.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.evaluation.runtime import spread

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
    pictures.captioned(images[worst], captions, directory / "mistakes.png")
    caption = f"{len(wrong)} of {len(images):,} are wrong; these with the most confidence: true class as predicted one."
    return f"## Worst mistakes\n\n![{caption}](mistakes.png)\n\n{caption}"


def _corruptions(bundle: Bundle, test: Split, directory: Path) -> str:
    rows = robustness.under_corruptions(bundle, test.images, _labels(test))
    one = test.images[:1]
    examples = np.concatenate(
        [image for name in CORRUPTIONS for image in (one, *(corrupt(one, name, severity) for severity in SEVERITIES))]
    )
    names = [name.replace("_", " ") for name in CORRUPTIONS]
    pictures.image_grid(examples, 1 + len(SEVERITIES), directory / "corruptions.png", names)
    _curves(rows, "severity", [0, *SEVERITIES], directory / "robustness.png")
    return _chapter(
        "Robustness to corruptions",
        f"{len(test):,} test images, corrupted in six ways at severities 1 to 5 (training/evaluation/corruptions.py "
        "says how much); 0 is as they are. No robustness is claimed beyond this table.",
        robustness.markdown(rows, "severity", SEVERITIES),
        "![Accuracy and calibration error by severity.](robustness.png)",
        "![One test image: each corruption at severity 0 to 5.](corruptions.png)",
    )


def _attacks(bundle: Bundle, test: Split, directory: Path) -> str:
    from training.evaluation.attacks import EPSILONS, STEPS  # noqa: PLC0415  (torch takes seconds to import)
    from training.evaluation.gradient import NoGradientError  # noqa: PLC0415

    title = "Robustness to attacks"
    try:
        rows = robustness.under_attacks(bundle, test.images, _labels(test))
    except NoGradientError as error:
        return _chapter(title, f"Not measured: {error}.")
    _curves(rows, "epsilon, grey levels of 255", [0, *EPSILONS], directory / "attacks.png")
    return _chapter(
        title,
        f"{len(test):,} test images, each pixel changed by at most epsilon of 255 grey levels against the classifier's "
        f"own gradient: FGSM in one step, PGD in {STEPS} from one random start. The gradients are computed from the "
        "exported graph, and the figures measured on it. A stronger attack can only lower them, and no robustness is "
        "claimed.",
        robustness.markdown(rows, "epsilon", EPSILONS),
        "![Accuracy and calibration error by epsilon.](attacks.png)",
    )


def _explanations(bundle: Bundle, test: Split, directory: Path) -> str:
    checked = explanations.check(bundle, test.images)
    panels = {
        "deletion: probability of the class": {name: one.deletion for name, one in checked.items()},
        "insertion: probability of the class": {name: one.insertion for name, one in checked.items()},
    }
    pictures.curves(explanations.SHARES, panels, "share of the pixels", directory / "explanations.png")
    return _chapter(
        "Checks of the explanations",
        f"{len(test):,} test images, explained for the class that they are given. Deletion and insertion (Petsiuk et "
        "al., 2018): the area under the class's probability while the most important pixels are hidden first, or shown "
        "first. The correlation is the sanity check of Adebayo et al. (2018), by rank, with the map of the "
        "same graph with shuffled weights, which is 1 for a map that does not depend on what was learned. Ink (the "
        "distance from the background), centre (a blob) and random numbers never ask the classifier; `beats` names "
        f"those of them that a map beats on both curves by more than {explanations.CLEARLY} standard errors of the "
        "difference. Means ± standard errors.",
        explanations.markdown(checked),
        "![Deletion and insertion curves of each map.](explanations.png)",
    )


def _curves(rows: robustness.Rows, axis: str, strengths: list[int], path: Path) -> None:
    shown = {name.replace("_", " "): row for name, row in rows.items()}
    panels = {
        "accuracy": {name: np.array([one.accuracy for one in row]) for name, row in shown.items()},
        "ECE": {name: np.array([one.ece for one in row]) for name, row in shown.items()},
    }
    pictures.curves(np.array(strengths), panels, axis, path)


def _chapter(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _some(test: Split, count: int) -> Split:
    return test.take(spread(len(test), count))


def _labels(test: Split) -> np.ndarray:
    if test.labels is None:
        raise ValueError("a classifier's report wants labelled data")
    return test.labels
