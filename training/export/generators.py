"""Export of VAEs and GANs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from services.inference import bundle
from training.data import Dataset
from training.data.arrays import Array, binarised, philox
from training.export.bundle import Exported
from training.export.parity import BATCH_SIZES
from training.export.trace import export_graph, likelihood_constants, some_images
from training.export.wrappers import Decode, Discriminate, Encode, Generate
from training.graphs.session import open_graph, run
from training.networks.class_prior import ClassPrior, fit_prior
from training.networks.conditional_vae import ConditionalVAE
from training.networks.gan import GAN


def export_vae(vae: Any, dataset: Dataset, directory: Path) -> Exported:
    """`encode.onnx` and `decode.onnx` in `directory`."""
    graphs = {
        "encode": export_graph(Encode(vae), {"images": some_images(dataset.test.images)}, directory / "encode.onnx"),
        "decode": export_graph(Decode(vae), {"latents": _latents(vae)}, directory / "decode.onnx"),
    }
    return Exported(graphs, latent_size=vae.latent_size)


def export_gan(generator: Any, dataset: Dataset, directory: Path) -> Exported:
    """`decode.onnx` in `directory`, and `discriminate.onnx` if there is a discriminator.

    They take labels if the data set has classes.
    """
    given = _classes_in_turn(dataset)
    path = directory / "decode.onnx"
    graphs = {"decode": export_graph(Generate(generator), {"latents": _latents(generator), **given}, path)}
    if isinstance(generator, GAN):
        feeds = {"images": some_images(dataset.test.images), **given}
        graphs["discriminate"] = _export_discriminator(generator, dataset, path, feeds)
    return Exported(graphs, latent_size=generator.latent_size)


def _classes_in_turn(dataset: Dataset) -> dict[str, Array]:
    if not dataset.class_names:
        return {}
    return {"labels": np.arange(max(BATCH_SIZES), dtype=np.int64) % len(dataset.class_names)}


def _export_discriminator(gan: GAN, dataset: Dataset, decoder: Path, feeds: Mapping[str, Array]) -> bundle.Graph:
    """`discriminate.onnx` beside `decoder`, calibrated on the calibration split and as many samples of its classes.

    Source: R. Turner et al., "Metropolis-Hastings generative adversarial networks", ICML 2019, section 3.2.
    """
    path = decoder.with_name("discriminate.onnx")
    export_graph(Discriminate(gan.discriminator), feeds, path)
    real = dataset.calibration
    given: dict[str, Array] = {} if real.labels is None else {"labels": real.labels}
    noise = philox(0).standard_normal((len(real), gan.latent_size), dtype=np.float32)
    drawn = run(open_graph(decoder), {"latents": noise, **given})["images"]
    scores = np.concatenate(
        [run(open_graph(path), {"images": images, **given})["log_ratio"] for images in (real.images, drawn)]
    )
    fit = LogisticRegression(C=1e6).fit(scores[:, None], np.repeat([1, 0], len(real)))
    calibrated = Discriminate(gan.discriminator, float(fit.coef_[0, 0]), float(fit.intercept_[0]))
    return export_graph(calibrated, feeds, path)


def export_conditional_vae(vae: ConditionalVAE, dataset: Dataset, directory: Path) -> Exported:
    """`encode.onnx`, `prior.onnx` and `decode.onnx` in `directory`, and the constants of the pixel likelihood.

    With `binarised` 1 the pixels are 0 or 1; the logistic likelihood has a logarithmic scale for each channel.
    """
    path = directory / "encode.onnx"
    encode = {"encode": export_graph(Encode(vae), {"images": some_images(dataset.test.images)}, path)}
    training = dataset.train
    seen = binarised(training.images, 1) if vae.likelihood == "bernoulli" else training.images
    posterior = run(open_graph(path), {"images": seen})
    prior = ClassPrior(*fit_prior(posterior["mean"], posterior["log_variance"], training.labels, vae.classes))
    noise = {"noise": _latents(vae)} | _classes_in_turn(dataset)
    graphs = encode | {"prior": export_graph(prior, noise, directory / "prior.onnx")}
    graphs |= export_gan(vae, dataset, directory).graphs
    return Exported(graphs, likelihood_constants(vae), vae.latent_size)


def _latents(module: Any) -> NDArray[np.float32]:
    return philox(0).standard_normal((max(BATCH_SIZES), module.latent_size), dtype=np.float32)
