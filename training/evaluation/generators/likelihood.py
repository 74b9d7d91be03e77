"""Bounds on log p(x|y) and log p(x) of a conditional VAE, from the exported graphs, in nats."""

from __future__ import annotations

import numpy as np

from services.inference.bundle import Bundle
from training.data.arrays import Array, Images, Labels, binarised
from training.evaluation.generators.elbo import log_probability
from training.graphs.inference import by_class, prior
from training.graphs.session import open_graph, run
from training.metrics.likelihood import Density, log_marginal

TOGETHER = 64  # draws that are decoded at once, so that their pixels fit the processor's cache


def density(bundle: Bundle) -> Density:
    """The model in a bundle with `encode` and `decode`; the likelihood of a pixel follows from its constants."""
    encoder, decoder = open_graph(bundle.graph_path("encode")), open_graph(bundle.graph_path("decode"))
    conditional = by_class(bundle)

    def encode(images: Array) -> tuple[Array, Array]:
        outputs = run(encoder, {"images": images})
        return outputs["mean"], outputs["log_variance"]

    def log_likelihood(image: Array, latents: Array, labels: Labels) -> Array:
        feeds: dict[str, Array] = {"latents": latents} | ({"labels": labels} if conditional else {})
        parts = []
        for start in range(0, len(latents), TOGETHER):
            some = {name: rows[start : start + TOGETHER] for name, rows in feeds.items()}
            parts.append(log_probability(image[None], decoder.run(["pixels"], some)[0], bundle))
        return np.concatenate(parts)

    classes = max(1, len(bundle.manifest.class_names)) if conditional else 1
    return Density(encode, log_likelihood, classes, prior(bundle) if "prior" in bundle.manifest.graphs else None)


def likelihood_metrics(
    bundle: Bundle, images: Images, *, samples: int, seed: int = 0, progress: str = ""
) -> dict[str, float]:
    """Upper bound on -log p(x) in nats and in bits per dimension from `samples` draws, with its standard error.

    Only for models with a likelihood of pixels, so not for the cross-entropy of grey values.
    """
    if "binarised" in bundle.manifest.constants:
        images = binarised(images, seed)
    nats = -log_marginal(density(bundle).bounds(images, samples, seed=seed, progress=progress))
    return {
        "nll": float(nats.mean()),
        "nll_standard_error": float(nats.std(ddof=1) / np.sqrt(len(nats))),
        "nll_bits_per_dimension": float(nats.mean() / np.log(2) / np.prod(images.shape[1:])),
        "nll_samples": float(samples),
        "nll_images": float(len(images)),
    }
