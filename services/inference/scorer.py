"""An anomaly scorer: images in, conformal p-values out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from services.inference.bundle import Bundle, BundleError, Task
from services.inference.drift.detector import SLICE_SECONDS, TOLERATED, Drift
from services.inference.session import Arrays, Session

VERDICT = ("score", "p_value", "label", "class_p_value")  # the last two if the graph has them
MAP = frozenset({"residual", "statistics", "look_alike"})  # the last two if the graph has them


class Scorer:
    """Operations on images uint8 [N,C,H,W].

    `score` -> score float32 [N] (higher is more unusual), p_value float32 [N], and if the graph has them label
    int64 [N] and class_p_value float32 [N]. `score_map` adds residual float32 [N,H,W], and if the graph has them
    statistics float32 [N,S] (-log p, nats) and look_alike uint8 [N,C,H,W]. There are two operations, so that a cached
    score does not include a map.

    Attributes:
        drift: the drift test of the scored images; the protocols pass it the p-values.
    """

    task: ClassVar[Task] = "anomaly"
    operations = ("score", "score_map")
    estimated_operations: Mapping[str, tuple[int, Arrays]] = MappingProxyType({})

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        """Raises: BundleError: the manifest does not name every column of `statistics`, or the graph does not load."""
        self.bundle = bundle
        self._score = Session(bundle.graph_path("score"), threads=threads)
        has = frozenset(self._score.outputs)
        self.optional = has & {"label", "class_p_value", "statistics", "look_alike"}
        columns = {tensor.name: tensor.shape[-1] for tensor in bundle.manifest.graphs["score"].outputs}
        if "statistics" in has and columns.get("statistics") != len(self.statistics):
            message = f"{columns.get('statistics')} statistics, but {len(self.statistics)} names; export it again"
            raise BundleError(f"{bundle.path}: {message}")
        self._outputs = {
            "score": tuple(name for name in VERDICT if name in has),
            "score_map": tuple(name for name in (*VERDICT, *sorted(MAP)) if name in has),
        }
        self.watch(TOLERATED, SLICE_SECONDS)

    def watch(self, tolerated: float, slice_seconds: float) -> None:
        """Begin the drift test, with the share of images that may be strange and the length of a slice."""
        sizes = self.class_sizes if "label" in self.optional else ()
        names = self.class_names
        self.drift = Drift(
            self.bundle.name, self.calibration_size, sizes, names, tolerated=tolerated, slice_seconds=slice_seconds
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.manifest.class_names

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the columns of `statistics`."""
        return self.bundle.manifest.statistics

    @property
    def residual_scale(self) -> float:
        """The residual that 1 % of the pixels of normal images exceed."""
        return self.bundle.manifest.constants["residual_q99"]

    @property
    def smallest_p_value(self) -> float:
        return self.bundle.manifest.constants["smallest_p_value"]

    @cached_property
    def calibration_size(self) -> int:
        """The number of calibration images; the first bundles only have their smallest p-value."""
        return round(self.bundle.manifest.constants.get("calibration_size", 1 / self.smallest_p_value - 1))

    @cached_property
    def class_sizes(self) -> tuple[int, ...]:
        """The number of calibration images predicted as each class; empty if the bundle has no such constants."""
        constants = self.bundle.manifest.constants
        shares = [constants.get(f"class_share/{index}", 0.0) for index in range(len(self.class_names))]
        sizes = tuple(round(share * self.calibration_size) for share in shares)
        return sizes if any(sizes) else ()

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._score.run(inputs, self._outputs[operation])

    def example(self, operation: str) -> Arrays:
        return {"images": np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)}
