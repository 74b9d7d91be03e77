"""Export of the classifier by Bayes' rule: p(y|x), and a bound on log p(x, y)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import Dataset
from training.data.arrays import Array, binarised, evenly_spaced, philox
from training.export.bundle import Exported
from training.export.classifier import export_classifier
from training.export.parity import as_shipped
from training.export.trace import export_graph, likelihood_constants, some_images
from training.export.wrappers import LogJoint
from training.graphs.session import CHUNK, open_graph, run
from training.metrics.likelihood import Density, log_marginal
from training.networks.class_prior import ClassPrior, fit_prior
from training.networks.conditional_vae import BayesClassifier, ConditionalVAE

DRAWS = (
    16  # of z an image: with 8 the bound is 0.3 nats lower on MNIST, with 32 it is 0.2 nats higher at twice the cost
)
CHECKED = 100  # calibration images that the error of the bound is measured on
CHECK_DRAWS = 300  # of the bound that it is compared with


def export_bayes(vae: ConditionalVAE, dataset: Dataset, directory: Path) -> Exported:
    """`classify.onnx` and `log_joint.onnx` in `directory`, and their constants.

    `log_joint_error` is the root mean square difference, in nats, of log p(x) from its bound with many draws, on
    calibration images. The constants of the pixel likelihood are those of the conditional VAE's own bundle.
    """
    classifier = export_classifier(BayesClassifier(vae), dataset, directory)
    graphs = classifier.graphs
    shipped = as_shipped(vae)
    training = dataset.train
    means, log_variances = _encode(shipped, _seen(vae, training.images))
    prior = fit_prior(means, log_variances, training.labels, vae.classes)
    noise = philox(0).standard_normal((DRAWS, vae.latent_size), dtype=np.float32)
    graph = LogJoint(vae.cpu(), ClassPrior(*prior), torch.from_numpy(noise))
    path = directory / "log_joint.onnx"
    graphs["log_joint"] = export_graph(graph, {"images": some_images(dataset.test.images)}, path)
    images = _seen(vae, dataset.calibration.images[evenly_spaced(len(dataset.calibration), CHECKED)])
    served = np.concatenate([run(open_graph(path), {"images": one[None]})["log_joint"] for one in images])
    exact = _density(shipped, prior).bounds(images, CHECK_DRAWS, seed=1)
    difference = np.logaddexp.reduce(served, axis=1) - log_marginal(exact)
    measured = {"log_joint_draws": float(DRAWS), "log_joint_error": float(np.sqrt(np.square(difference).mean()))}
    return Exported(graphs, classifier.constants | likelihood_constants(vae) | measured)


def _seen(vae: ConditionalVAE, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images as the likelihood describes them."""
    return binarised(images, 1) if vae.likelihood == "bernoulli" else images


@torch.no_grad()
def _encode(vae: ConditionalVAE, images: Array) -> tuple[Array, Array]:
    """Mean and log variance of q(z|x), both [N,D]."""
    parts = [
        vae.encode(torch.from_numpy(images[start : start + CHUNK]).float() / 255)
        for start in range(0, len(images), CHUNK)
    ]
    means, log_variances = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return means, log_variances


def _density(vae: ConditionalVAE, prior: tuple[Array, Array]) -> Density:
    @torch.no_grad()
    def log_likelihood(image: Array, latents: Array, labels: Array) -> Array:
        x = torch.from_numpy(image)[None].float() / 255
        z, y = torch.from_numpy(latents), torch.from_numpy(labels)
        parts = [
            vae.log_likelihood(x, vae.decode(z[start : start + CHUNK], y[start : start + CHUNK]))
            for start in range(0, len(z), CHUNK)
        ]
        return torch.cat(parts).double().numpy()

    return Density(lambda images: _encode(vae, images), log_likelihood, vae.classes, prior)
