"""What the graphs of a bundle compute, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data.arrays import Array, Images, philox
from training.graphs.session import open_graph, run

Prior = tuple[NDArray[np.float64], NDArray[np.float64]]  # N(means[y], factors[y] factors[y]^T): [K,D], [K,D,D]


def encode(bundle: Bundle, images: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Mean and log variance [N,D] of q(z|x)."""
    outputs = run(open_graph(bundle.graph_path("encode")), {"images": images})
    return outputs["mean"], outputs["log_variance"]


def decode(bundle: Bundle, latents: Array, labels: NDArray[np.int64] | None = None) -> dict[str, Array]:
    """`images` uint8 and `pixels` float32 in 0..1, both [N,C,H,W]."""
    feeds: dict[str, Array] = {"latents": latents} if labels is None else {"latents": latents, "labels": labels}
    return run(open_graph(bundle.graph_path("decode")), feeds)


def sample(bundle: Bundle, count: int, labels: NDArray[np.int64] | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """Images [count,C,H,W] decoded from draws of the prior."""
    noise = philox(seed).standard_normal((count, bundle.manifest.latent_size or 0), dtype=np.float32)
    images: NDArray[np.uint8] = decode(bundle, from_noise(bundle, noise, labels), labels)["images"]
    return images


def from_noise(bundle: Bundle, noise: Array, labels: NDArray[np.int64] | None = None) -> Array:
    """Draws of the prior [N,D] from draws of N(0, I) [N,D]; both are equal unless the bundle has a `prior`."""
    if "prior" not in bundle.manifest.graphs:
        return noise
    feeds = {"noise": noise} if labels is None else {"noise": noise, "labels": labels}
    return run(open_graph(bundle.graph_path("prior")), feeds)["latents"]


def prior(bundle: Bundle) -> Prior:
    """The prior of each class."""
    size = bundle.manifest.latent_size or 0
    noise = np.concatenate([np.zeros((1, size), np.float32), np.eye(size, dtype=np.float32)])
    means, factors = [], []
    for label in range(max(1, len(bundle.manifest.class_names)) if by_class(bundle) else 1):
        labels = np.full(len(noise), label, np.int64) if by_class(bundle) else None
        latents = from_noise(bundle, noise, labels).astype(np.float64)
        means.append(latents[0])
        factors.append((latents[1:] - latents[0]).T)
    return np.stack(means), np.stack(factors)


def by_class(bundle: Bundle) -> bool:
    """Whether the decoder of a generator takes the class."""
    return any(tensor.name == "labels" for tensor in bundle.manifest.graphs["decode"].inputs)


def balanced_labels(bundle: Bundle, count: int) -> NDArray[np.int64] | None:
    """Labels 0, 1, ..., K-1, 0, ... for a conditional generator, None for one without labels."""
    if not by_class(bundle):
        return None
    return np.arange(count, dtype=np.int64) % len(bundle.manifest.class_names)


def predict(bundle: Bundle, images: NDArray[np.uint8]) -> dict[str, Array]:
    """Every output of the graph, including `logits` and `probabilities` [N,K], for `images` [N,C,H,W]."""
    return run(open_graph(bundle.graph_path("classify")), {"images": images})


def score(bundle: Bundle, images: Images) -> dict[str, Array]:
    """`score` [N] in nats, `p_value` [N], `residual` [N,H,W] of `images` [N,C,H,W]."""
    return run(open_graph(bundle.graph_path("score")), {"images": images})
