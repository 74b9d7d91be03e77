"""Gates: the bounds that a model's validation figures have to meet before it may be stored.

A gate finds a training that failed; it estimates nothing. Validation figures are a little optimistic (see `validate` in
training/publishing/report.py), and a bound is far from what a good training reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.inference.bundle import Gate, Manifest
from training.metrics.detection import false_positive_band
from training.metrics.samples import COLLAPSED, DUPLICATES

ACCURACY = {"digits": 0.97, "mnist": 0.985, "fashion-mnist": 0.86}
CONDITIONAL_ACCURACY = {"digits": 0.90, "mnist": 0.90}
# The classic 784-256-2 network reaches 158 nats after 10 epochs on grey MNIST.
NEGATIVE_ELBO = {"mnist": 165.0}
# A VAE decodes the mean of many possible images, which is smoother than each of them: even reconstructions of
# Fashion-MNIST's own images reach only 0.46 of the coverage of real images.
SMOOTH = 0.4


class GateError(RuntimeError):
    """A model missed gates; the message gives every value and its bound."""


def check(manifests: Iterable[Manifest]) -> None:
    """Raise GateError with every gate that failed, of every manifest."""
    failures = [
        f"{manifest.name}: {gate.metric} {gate.value:.6g} is not {gate.direction} {gate.bound:.6g}"
        for manifest in manifests
        for gate in manifest.gates
        if not gate.passed
    ]
    if failures:
        raise GateError(
            f"not stored: {'; '.join(failures)}. These are figures of the validation split: "
            "train longer, or with another recipe or seed"
        )


def classifier_gates(manifest: Manifest, metrics: Mapping[str, float]) -> tuple[Gate, ...]:
    """The accuracy of known data; for other data, better than chance. `metrics` are those of the validation split."""
    floor = ACCURACY.get(manifest.dataset.name)
    return baseline_gates(manifest, metrics) if floor is None else (_at_least("accuracy", metrics, floor),)


def baseline_gates(manifest: Manifest, metrics: Mapping[str, float]) -> tuple[Gate, ...]:
    """A baseline is only for comparison, so it only has to be better than chance."""
    # By chance the recall averaged over classes is 1/K, also for unbalanced classes; accuracy is not.
    return (_at_least("macro_recall", metrics, _above_chance(manifest)),)


def vae_gates(manifest: Manifest, metrics: Mapping[str, float]) -> tuple[Gate, ...]:
    """The bound must be clearly better than that of the mean image."""
    # A decoder that ignores its latents draws the mean image. The bound is a tenth of the way from there to the floor.
    bound = metrics["mean_image_loss"] - 0.1 * (metrics["mean_image_loss"] - metrics["pixel_entropy"])
    return (_at_most("negative_elbo", metrics, min(bound, NEGATIVE_ELBO.get(manifest.dataset.name, bound))),)


def conditional_vae_gates(manifest: Manifest, metrics: Mapping[str, float]) -> tuple[Gate, ...]:
    """Those of a GAN, but its samples may be smooth."""
    return gan_gates(manifest, metrics, covered=SMOOTH)


def gan_gates(manifest: Manifest, metrics: Mapping[str, float], covered: float = COLLAPSED) -> tuple[Gate, ...]:
    """Diverse samples of the right classes; what was not measured, for want of a judge, has no gate."""
    results = [_at_least("relative_diversity", metrics, COLLAPSED)]
    if "conditional_accuracy" in metrics:
        bound = CONDITIONAL_ACCURACY.get(manifest.dataset.name, _above_chance(manifest))
        results.append(_at_least("conditional_accuracy", metrics, bound))
    if "coverage_ratio" in metrics:  # a collapsed generator draws only a few different images
        results += [_at_least("coverage_ratio", metrics, covered), _at_most("near_duplicates", metrics, DUPLICATES)]
    return tuple(results)


def scorer_gates(manifest: Manifest, metrics: Mapping[str, float]) -> tuple[Gate, ...]:
    """Valid p-values, and for known data a score that finds noise."""
    sizes = int(manifest.constants["calibration_size"]), manifest.dataset.splits["validation"]
    low, high = false_positive_band(0.05, *sizes)
    rate = "false_positive_rate/0.05"
    results = [_at_least(rate, metrics, low), _at_most(rate, metrics, high)]
    if manifest.dataset.name in ACCURACY:
        results.append(_at_least("auroc/uniform_noise", metrics, 0.9))
    return tuple(results)


def _above_chance(manifest: Manifest) -> float:
    return min(1.0, 1.5 / max(1, len(manifest.class_names)))


def _at_least(metric: str, metrics: Mapping[str, float], bound: float) -> Gate:
    return Gate(metric=metric, value=metrics[metric], bound=bound, direction="at least", split="validation")


def _at_most(metric: str, metrics: Mapping[str, float], bound: float) -> Gate:
    return Gate(metric=metric, value=metrics[metric], bound=bound, direction="at most", split="validation")
