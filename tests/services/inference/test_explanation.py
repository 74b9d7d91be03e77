"""Hiding what a decision rests on takes it away, and the map shows where that was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.inference.explanation import PASSES, Probabilities, occlusion, rise

Explain = Callable[[Probabilities, np.ndarray, int], np.ndarray]
explanations = pytest.mark.parametrize("explain", [occlusion, rise])


def corner(images: np.ndarray) -> np.ndarray:
    """A model whose class 1 rests on the brightness of the upper left quarter alone."""
    height, width = images.shape[2:]
    bright = images[:, :, : height // 2, : width // 2].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - bright, bright], axis=1).astype(np.float32)


def drawing(height: int = 16, width: int = 16, channels: int = 1) -> np.ndarray:
    """Bright strokes in the upper left and the lower right, on black."""
    image = np.zeros((channels, height, width), np.uint8)
    image[:, 1 : height // 2 - 1, 1 : width // 2 - 1] = 250
    image[:, height // 2 + 1 : -1, width // 2 + 1 : -1] = 250
    return image


@explanations
@pytest.mark.parametrize("shape", [(16, 16, 1), (20, 12, 3), (28, 28, 1)])
def test_the_map_is_bright_where_the_decision_rests(explain: Explain, shape: tuple[int, int, int]) -> None:
    image = drawing(*shape)
    saliency = explain(corner, image, 1)
    assert saliency.shape == image.shape[1:]
    assert saliency.dtype == np.float32
    rested = saliency[: shape[0] // 2, : shape[1] // 2].mean()
    rest = saliency[shape[0] // 2 :, shape[1] // 2 :].mean()
    assert rested > 5 * abs(rest)


@explanations
def test_the_other_class_has_the_opposite_map(explain: Explain) -> None:
    image = drawing()
    np.testing.assert_allclose(explain(corner, image, 0), -explain(corner, image, 1), atol=1e-6)


@explanations
def test_a_blank_image_and_an_indifferent_model_have_an_empty_map(explain: Explain) -> None:
    def indifferent(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 2), 0.5, np.float32)

    np.testing.assert_allclose(explain(corner, np.full((1, 16, 16), 77, np.uint8), 1), 0, atol=1e-6)
    np.testing.assert_allclose(explain(indifferent, drawing(), 1), 0, atol=1e-6)


@explanations
def test_the_same_question_has_the_same_answer(explain: Explain) -> None:
    assert explain(corner, drawing(), 1).tobytes() == explain(corner, drawing(), 1).tobytes()


@explanations
def test_masked_images_are_uint8_and_come_in_batches_that_fit_the_cache(explain: Explain) -> None:
    batches = []

    def watched(images: np.ndarray) -> np.ndarray:
        batches.append((images.shape[1:], images.dtype, len(images)))
        return corner(images)

    explain(watched, drawing(channels=3), 1)
    assert {(shape, dtype) for shape, dtype, _ in batches} == {((3, 16, 16), np.dtype(np.uint8))}
    assert max(size for *_, size in batches) <= PASSES


@explanations
@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_tiny_images_have_maps_too(explain: Explain, side: int) -> None:
    def brightness(images: np.ndarray) -> np.ndarray:
        return (images.mean(axis=(1, 2, 3)) / 255)[:, None].astype(np.float32)

    image = np.arange(side * side, dtype=np.uint8).reshape(1, side, side)
    assert np.isfinite(explain(brightness, image, 0)).all()
