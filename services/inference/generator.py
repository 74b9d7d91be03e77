"""A generator: decodes latents (and classes) to images; with an encoder, encodes images to latents."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from services.inference.bundle import Bundle, BundleError, Task
from services.inference.session import Arrays, Session

OUTPUTS = {"decode": "images", "encode": "mean", "discriminate": "log_ratio"}


class Generator:
    """Operations.

    `decode`: latents float32 [N,D] (, labels int64 [N]) -> images uint8 [N,C,H,W].
    `encode` (VAE only): images uint8 [N,C,H,W] -> mean float32 [N,D].
    `discriminate` (GAN only): images uint8 [N,C,H,W] (, labels int64 [N]) -> log_ratio float32 [N].

    Each item runs as its own batch: a matrix product may round differently at another batch size, and the same seed
    must give the same bytes in every batch. On a CPU this costs almost nothing.
    """

    task: ClassVar[Task] = "generation"
    estimated_operations: Mapping[str, tuple[int, Arrays]] = MappingProxyType({})

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        if bundle.manifest.latent_size is None:
            raise BundleError(f"{bundle.path}: the manifest of a generator needs latent_size; export the bundle again")
        self.latent_size = bundle.manifest.latent_size
        self._graphs = {name: Session(bundle.graph_path(name), threads=threads) for name in bundle.manifest.graphs}
        self.operations = tuple(name for name in OUTPUTS if name in self._graphs)

    @property
    def conditional(self) -> bool:
        """Whether the generator draws by class."""
        return "labels" in self._graphs["decode"].inputs

    def classes_in_turn(self, count: int) -> np.ndarray:
        """Class indices int64 [count], all classes in turn, for requests without a class."""
        return np.arange(count, dtype=np.int64) % max(1, len(self.bundle.manifest.class_names))

    @property
    def can_encode(self) -> bool:
        return "encode" in self._graphs

    @property
    def can_discriminate(self) -> bool:
        return "discriminate" in self._graphs

    @property
    def has_prior(self) -> bool:
        """Whether the prior is fitted, and not N(0, I)."""
        return "prior" in self._graphs

    def latents(self, noise: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Draws of the prior, float32 [N,D], from draws of N(0, I) [N,D] and their classes int64 [N].

        Both are equal unless the bundle has a `prior`, which takes some microseconds for each item.
        """
        if not self.has_prior:
            return noise
        inputs = {"noise": noise} if labels is None else {"noise": noise, "labels": labels}
        return self._each("prior", inputs, "latents")

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {OUTPUTS[operation]: self._each(operation, inputs, OUTPUTS[operation])}

    def _each(self, graph: str, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        session, count = self._graphs[graph], len(next(iter(inputs.values())))
        items = ({name: array[i : i + 1] for name, array in inputs.items()} for i in range(count))
        return np.concatenate([session.run(item, (output,))[output] for item in items])

    def example(self, operation: str) -> Arrays:
        images = {"images": np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)}
        if operation == "encode":
            return images
        drawn = images if operation == "discriminate" else {"latents": np.zeros((1, self.latent_size), np.float32)}
        return drawn | ({"labels": np.zeros(1, np.int64)} if self.conditional else {})
