"""Interpolation in a latent space."""

from __future__ import annotations

import numpy as np


def interpolate(start: np.ndarray, end: np.ndarray, steps: int, *, spherical: bool) -> np.ndarray:
    """Latents from `start` to `end`, both included.

    Args:
        start: float32 [D].
        end: float32 [D].
        steps: number of latents, at least 2.
        spherical: along the great circle (slerp; White 2016, "Sampling generative networks"), which keeps the typical
            norm of a Gaussian latent; otherwise, and if the ends are parallel, along the straight line.

    Returns:
        float32 [steps, D].
    """
    at = np.linspace(0, 1, steps, dtype=np.float64)[:, None]
    a, b = start.astype(np.float64), end.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / norms, -1, 1)) if norms else 0.0
    if spherical and np.sin(angle) > 1e-6:
        walk = (np.sin((1 - at) * angle) * a + np.sin(at * angle) * b) / np.sin(angle)
    else:
        walk = (1 - at) * a + at * b
    return np.asarray(walk, np.float32)
