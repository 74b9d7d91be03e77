"""Statistics against other implementations of the same formulas, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from scipy.special import rel_entr
from scipy.stats import multivariate_normal

from training.data.arrays import Array, philox
from training.scorer.statistics import SHRINKAGE, ClassGaussian, RelativeMahalanobis, Statistics, divergence, whitening


def cloud(count: int, size: int, seed: int = 0) -> Array:
    """Correlated points that do not lie around 0."""
    generator = philox(seed)
    mixing = generator.standard_normal((size, size))
    points: Array = (generator.standard_normal((count, size)) @ mixing + 3).astype(np.float32)
    return points


def shrunk(points: Array) -> Array:
    """The covariance that the statistics use, in float64."""
    covariance: Array = np.cov(points.astype(np.float64), rowvar=False, bias=True)
    size = len(covariance)
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / size * np.eye(size)


def test_whitened_offsets_are_as_long_as_mahalanobis_says() -> None:
    points = cloud(200, 5)
    offsets = points - points.mean(axis=0)
    inverse = np.linalg.inv(shrunk(points))
    expected = [mahalanobis(offset, np.zeros(5), inverse) for offset in offsets[:20].astype(np.float64)]
    np.testing.assert_allclose(np.linalg.norm(offsets[:20] @ whitening(offsets), axis=1), expected, rtol=1e-4)


@pytest.mark.parametrize("points", [np.zeros((4, 3), np.float32), np.ones((1, 3), np.float32)])
def test_points_that_are_all_alike_whiten_to_something_finite(points: Array) -> None:
    assert np.isfinite(whitening(points - points.mean(axis=0))).all()


def test_gaussian_is_the_log_density_up_to_one_constant() -> None:
    """One constant for all classes: what is compared is also how wide the classes are."""
    points, labels = np.concatenate([cloud(80, 4), 5 * cloud(60, 4, seed=1)]), np.repeat([0, 1], [80, 60])
    gaussian = ClassGaussian(points, labels, 2)
    new, of = cloud(30, 4, seed=2), np.arange(30) % 2
    actual = gaussian(torch.from_numpy(new), torch.from_numpy(of)).numpy()
    densities = [multivariate_normal(points[labels == k].mean(axis=0), shrunk(points[labels == k])) for k in (0, 1)]
    expected = np.array([-2 * densities[k].logpdf(x) for x, k in zip(new, of, strict=True)])
    np.testing.assert_allclose(actual - expected, -4 * np.log(2 * np.pi), rtol=1e-3)


def test_a_class_without_points_has_the_distribution_of_all() -> None:
    points = cloud(50, 3)
    labels = np.append(np.zeros(49, np.int64), 2)  # none of class 1, a single point of class 2
    gaussian, whole = ClassGaussian(points, labels, 3), ClassGaussian(points, np.zeros(50, np.int64), 1)
    new = torch.from_numpy(cloud(10, 3, seed=1))
    expected = whole(new, torch.zeros(10, dtype=torch.int64))
    for label in (1, 2):
        assert torch.allclose(gaussian(new, torch.full((10,), label)), expected)
    assert not torch.allclose(gaussian(new, torch.zeros(10, dtype=torch.int64)), expected)


def test_relative_is_the_nearest_class_less_all() -> None:
    labels = np.repeat([0, 3, 7], 40)  # labels need not be 0 to K - 1
    points = cloud(120, 4) + 8 * (labels[:, None] == np.array([0, 3, 7, 9])).astype(np.float32)
    new = cloud(20, 4, seed=1)
    means = {label: points[labels == label].mean(axis=0) for label in (0, 3, 7)}
    within = np.linalg.inv(shrunk(points - np.stack([means[label] for label in labels])))
    overall = np.linalg.inv(shrunk(points))
    expected = [
        min(mahalanobis(x, mean, within) ** 2 for mean in means.values())
        - mahalanobis(x, points.mean(axis=0), overall) ** 2
        for x in new.astype(np.float64)
    ]
    np.testing.assert_allclose(
        RelativeMahalanobis(points, labels)(torch.from_numpy(new)), expected, rtol=1e-3, atol=1e-2
    )


def test_divergence_is_that_of_bernoulli_distributions() -> None:
    levels = torch.arange(256) / 255
    pixels = torch.linspace(0.001, 0.999, 41)
    actual = divergence(levels[:, None], pixels[None])
    x, y = levels.double().numpy()[:, None], pixels.double().numpy()[None]
    np.testing.assert_allclose(actual, rel_entr(x, y) + rel_entr(1 - x, 1 - y), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("pixel", [0.0, 1.0, 1e-30])
def test_divergence_is_finite_at_the_extremes(pixel: float) -> None:
    values = divergence(torch.tensor([0.0, 1 / 255, 0.5, 1.0]), torch.full((4,), pixel))
    assert values.isfinite().all()
    assert (values >= 0).all()
    assert values.max() > 10, "what a decoder is sure of and wrong about is dear"
    assert divergence(torch.tensor([round(pixel)]), torch.tensor([pixel])) < 1e-5


def measured(images: NDArray[np.uint8], seed: int = 0) -> dict[str, Array]:
    """What parts would have made of the images."""
    generator, count = philox(seed), len(images)
    sizes = {"mean": 3, "logits": 4, "features": 6, "texture": 5}
    drawn = {name: generator.standard_normal((count, size), dtype=np.float32) for name, size in sizes.items()}
    pixels = generator.uniform(0.1, 0.9, images.shape).astype(np.float32)
    defects = generator.standard_normal((count, *images.shape[2:]), dtype=np.float32)
    views = generator.standard_normal((count, 2, 4), dtype=np.float32)
    return {"images": images, "pixels": pixels, "defects": defects, "views": views, **drawn}


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return philox(1).integers(0, 256, (60, 3, 8, 12)).astype(np.uint8)


@pytest.fixture(scope="module")
def statistics(images: NDArray[np.uint8]) -> Statistics:
    made = measured(images)
    return Statistics(made, np.arange(60) % 4, 4, conditional=False, coreset=np.arange(0, 60, 2))


def test_every_statistic_is_what_its_name_says(statistics: Statistics, images: NDArray[np.uint8]) -> None:
    made = measured(images[:9], seed=5)
    values, residual, rows = statistics({name: torch.from_numpy(array) for name, array in made.items()})
    columns = dict(zip(statistics.names, values.double().numpy().T, strict=True))
    x, pixels = made["images"] / 255, made["pixels"].astype(np.float64)
    expected = (rel_entr(x, pixels) + rel_entr(1 - x, 1 - pixels)).sum(axis=1)
    np.testing.assert_allclose(residual, expected, rtol=1e-3, atol=1e-4)
    ink = x.mean(axis=(1, 2, 3)) + 0.02
    np.testing.assert_allclose(columns["reconstruction"], expected.mean(axis=(1, 2)) / ink, rtol=1e-4)
    padded = np.pad(expected, ((0, 0), (1, 1), (1, 1)))
    peaks = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).mean(axis=(3, 4)).max(axis=(1, 2))
    np.testing.assert_allclose(columns["residual_peak"], peaks, rtol=1e-4)
    steps = np.abs(np.diff(x, axis=2)).mean(axis=(1, 2, 3)) + np.abs(np.diff(x, axis=3)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(columns["variation"], steps, rtol=1e-5)
    np.testing.assert_allclose(columns["energy"], -np.log(np.exp(made["logits"]).sum(axis=1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(columns["defects"], np.log(np.exp(made["defects"]).sum(axis=(1, 2))), rtol=1e-4)
    features, looks = made["features"], measured(images)["features"][::2]
    cosines = (features @ looks.T) / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(looks, axis=1)
    np.testing.assert_allclose(columns["neighbours"], 1 - np.sort(cosines)[:, -5:].mean(axis=1), atol=1e-5)
    assert rows.tolist() == cosines.argmax(axis=1).tolist()
    assert set(columns) == set(statistics.names)
    assert {"latent", "features", "texture", "views"} < set(columns)


def test_without_a_classifier_latents_are_compared(images: NDArray[np.uint8]) -> None:
    made = {name: array for name, array in measured(images).items() if name in ("images", "mean", "pixels", "defects")}
    looks = np.arange(3)  # fewer than are averaged
    statistics = Statistics(made, np.zeros(60, np.int64), 1, conditional=False, coreset=looks)
    assert statistics.names == ("reconstruction", "residual_peak", "latent", "variation", "defects")
    values, _, rows = statistics({name: torch.from_numpy(array) for name, array in made.items()})
    assert values.shape == (60, 5)
    assert values.isfinite().all()
    assert rows[:3].tolist() == [0, 1, 2], "each of them is its own look-alike"


def test_as_few_looks_as_there_are_are_averaged(images: NDArray[np.uint8]) -> None:
    made = measured(images)
    statistics = Statistics(made, np.arange(60) % 4, 4, conditional=True, coreset=np.arange(2))
    values, _, _ = statistics({name: torch.from_numpy(array) for name, array in made.items()})
    assert values.isfinite().all()
