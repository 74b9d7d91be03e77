"""A walk begins and ends where it was asked to, and a spherical one keeps to the shell that a Gaussian fills."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.interpolation import interpolate
from services.inference.noise import latents

seeds = st.integers(0, 2**63 - 1)
sizes = st.integers(2, 64)
steps = st.integers(2, 32)


@given(seeds, sizes, steps, st.booleans())
def test_both_ends_are_exact(seed: int, size: int, count: int, spherical: bool) -> None:
    start, end = latents(seed, range(2), size)
    walk = interpolate(start, end, count, spherical=spherical)
    assert walk.shape == (count, size)
    assert walk.dtype == np.float32
    assert np.array_equal(walk[0], start)
    assert np.array_equal(walk[-1], end)


@given(seeds, sizes, steps)
def test_a_spherical_walk_between_unit_vectors_stays_on_the_sphere_at_an_even_pace(
    seed: int, size: int, count: int
) -> None:
    start, end = (vector / np.linalg.norm(vector) for vector in latents(seed, range(2), size))
    walk = interpolate(start, end, count, spherical=True).astype(np.float64)
    assert np.allclose(np.linalg.norm(walk, axis=1), 1, atol=1e-5)
    strides = np.linalg.norm(np.diff(walk, axis=0), axis=1)
    assert np.allclose(strides, strides.mean(), atol=1e-5)


@given(seeds, sizes, steps)
def test_a_straight_walk_has_equal_steps(seed: int, size: int, count: int) -> None:
    start, end = latents(seed, range(2), size)
    walk = interpolate(start, end, count, spherical=False).astype(np.float64)
    assert np.allclose(np.diff(walk, axis=0), (end - start) / (count - 1), atol=1e-5)


@given(seeds, sizes, st.booleans())
def test_a_walk_back_is_the_walk_reversed(seed: int, size: int, spherical: bool) -> None:
    start, end = latents(seed, range(2), size)
    there = interpolate(start, end, 7, spherical=spherical)
    assert np.allclose(interpolate(end, start, 7, spherical=spherical)[::-1], there, atol=1e-5)


def test_halfway_round_a_quarter_circle_is_at_45_degrees() -> None:
    x, y = np.array([2, 0], np.float32), np.array([0, 2], np.float32)
    assert np.allclose(interpolate(x, y, 3, spherical=True)[1], np.sqrt(2))
    assert np.allclose(interpolate(x, y, 3, spherical=False)[1], 1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, -1.0, 1 + 1e-7])
def test_where_no_great_circle_is_defined_the_walk_is_straight(scale: float) -> None:
    start = np.array([1, 2, 3], np.float32)
    end = np.asarray(scale * start, np.float32)
    walk = interpolate(start, end, 5, spherical=True)
    assert np.array_equal(walk, interpolate(start, end, 5, spherical=False))
    assert np.isfinite(walk).all()


def test_two_zero_vectors_have_a_walk() -> None:
    zero = np.zeros(4, np.float32)
    assert not interpolate(zero, zero, 3, spherical=True).any()
