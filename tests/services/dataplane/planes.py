"""Data planes that run as long as a test, what the tiny classifier is asked, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from services.dataplane import DataPlane


@asynccontextmanager
async def running(*tasks: Any) -> AsyncIterator[DataPlane]:
    plane = DataPlane(tasks)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


def images(*brightness: int) -> dict[str, np.ndarray]:
    """Images uint8 [N,1,2,2], each of one brightness."""
    return {"images": np.array(brightness, np.uint8)[:, None, None, None] * np.ones((1, 2, 2), np.uint8)}


def sums(outputs: dict[str, np.ndarray]) -> list[float]:
    return list(outputs["logits"][:, 0].tolist())
