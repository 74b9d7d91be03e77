"""From PyTorch to ONNX: wraps networks into a bundle's graphs, exports and checks them, and compares them with PyTorch.

The graphs take uint8 pixels; normalisation, softmax and rounding to uint8 are part of the graph, so serving needs no
further arithmetic. See `services.inference.bundle` for the signatures, and `training.anomaly.export` for the scorer.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from services.inference import bundle
from training.baselines.estimator import Scores, convert
from training.data import Dataset
from training.evaluation.calibration import fit_temperature
from training.evaluation.conformal import COVERAGE, set_threshold
from training.evaluation.elbo import binarised
from training.evaluation.runtime import Array, open_graph, philox, run, spread
from training.graphs import Classify, Decode, Discriminate, Encode, Generate, Graph
from training.networks.conditional_vae import ConditionalVAE
from training.networks.gan import GAN
from training.networks.prior import ClassPrior, fit_prior
from training.parity import BATCH_SIZES, ExportError, as_shipped, measure_parity, top1_agreement

OPSET = 20
UNKNOWN = 0.123456789  # stands for a threshold that is filled in later; no other constant has this value


def export_classifier(
    cnn: nn.Module, dataset: Dataset, directory: Path
) -> tuple[dict[str, bundle.Graph], dict[str, float]]:
    """`classify.onnx` in `directory`, and the constants of its calibration for the manifest.

    The validation split fits the temperature, and the calibration split fits the threshold of the prediction sets: the
    coverage is valid only if the probabilities were made without the images that fit the threshold. The probabilities
    come from the exported graph, not from PyTorch, because close to 1 their order depends on rounding.
    """
    path = directory / "classify.onnx"
    feeds = {"images": some_images(dataset.test.images)}
    validation, calibration = dataset.validation, dataset.calibration
    if validation.labels is None or calibration.labels is None:
        raise ExportError(f"classify: {dataset.name} has no labels to calibrate with; give labelled data")
    logits = run(open_graph(_model(Classify(cnn), feeds, path.name).SerializeToString()), {"images": validation.images})
    temperature = fit_temperature(logits["logits"], validation.labels)
    # Traced once for the last two steps, which takes seconds: the threshold is filled in when it is known.
    model = _model(Classify(cnn, temperature, UNKNOWN), feeds, path.name)
    calibrated = run(open_graph(model.SerializeToString()), {"images": calibration.images})
    threshold = set_threshold(calibrated["probabilities"], calibration.labels, COVERAGE)
    _fill(model, threshold, path.name)
    graph = as_shipped(Classify(cnn, temperature, threshold))
    exported = save(model, path, graph, feeds, graph.settled)
    parity = exported.parity.model_copy(update={"top1_agreement": top1_agreement(graph, path, dataset.test.images)})
    constants = {
        "temperature": temperature,
        "set_coverage": COVERAGE,
        "set_threshold": threshold,
        "set_calibration_size": float(len(calibration)),
    }
    return {"classify": exported.model_copy(update={"parity": parity})}, constants


def export_vae(vae: nn.Module, dataset: Dataset, directory: Path) -> dict[str, bundle.Graph]:
    """`encode.onnx` and `decode.onnx` in `directory`."""
    return {
        "encode": export_graph(Encode(vae), {"images": some_images(dataset.test.images)}, directory / "encode.onnx"),
        "decode": export_graph(Decode(vae), {"latents": _latents(vae)}, directory / "decode.onnx"),
    }


def export_gan(generator: Any, dataset: Dataset, directory: Path) -> dict[str, bundle.Graph]:
    """`decode.onnx` in `directory`, and `discriminate.onnx` if there is a discriminator.

    They take labels if the data set has classes.
    """
    given = _classes_in_turn(dataset)
    path = directory / "decode.onnx"
    graphs = {"decode": export_graph(Generate(generator), {"latents": _latents(generator), **given}, path)}
    if isinstance(generator, GAN):
        feeds = {"images": some_images(dataset.test.images), **given}
        graphs["discriminate"] = _export_discriminator(generator, dataset, path, feeds)
    return graphs


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


def export_conditional_vae(
    vae: ConditionalVAE, dataset: Dataset, directory: Path
) -> tuple[dict[str, bundle.Graph], dict[str, float]]:
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
    return graphs | export_gan(vae, dataset, directory), likelihood_constants(vae)


def likelihood_constants(vae: ConditionalVAE) -> dict[str, float]:
    """What tells the likelihood of a pixel in a manifest: `binarised`, a scale for each channel, or nothing."""
    if vae.likelihood == "logistic":
        return {f"log_scale/{channel}": scale for channel, scale in enumerate(vae.log_scale.flatten().tolist())}
    return {"binarised": 1.0} if vae.likelihood == "bernoulli" else {}


def export_graph(graph: Graph, feeds: Mapping[str, Array], path: Path) -> bundle.Graph:
    """Export one of this module's graphs to `path` and compare it with PyTorch on `feeds` (64 rows each).

    Raises:
        ExportError: ONNX finds the file invalid, or an output differs from PyTorch by more than its bound.
    """
    return save(_model(graph, feeds, path.name), path, as_shipped(graph), feeds)


def _model(graph: Graph, feeds: Mapping[str, Array], name: str) -> onnx.ModelProto:
    graph = as_shipped(graph)
    if isinstance(graph, Classify) and isinstance(graph.cnn, Scores):
        return convert(graph)
    return trace(graph, feeds, name)


def _fill(model: onnx.ModelProto, threshold: float, name: str) -> None:
    """Put a threshold in the place of `UNKNOWN`.

    Raises:
        ExportError: the exporter did not keep it as one constant.
    """
    unknown = onnx.numpy_helper.from_array(np.array(UNKNOWN, np.float32)).raw_data
    found = [tensor for tensor in model.graph.initializer if onnx.numpy_helper.to_array(tensor).tobytes() == unknown]
    if len(found) != 1:
        raise ExportError(f"{name}: {len(found)} constants of the exported graph hold the threshold, not one")
    value = np.full(tuple(found[0].dims), threshold, np.float32)
    found[0].CopyFrom(onnx.numpy_helper.from_array(value, found[0].name))


def save(
    model: onnx.ModelProto,
    path: Path,
    graph: Callable[..., tuple[Tensor, ...]],
    feeds: Mapping[str, Array],
    settled: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
) -> bundle.Graph:
    """Write a model to `path`, always with the same bytes, and compare it with `graph` on `feeds` (64 rows each).

    `settled`: see `measure_parity`.

    Raises:
        ExportError: ONNX finds the file invalid, or an output differs from PyTorch by more than its bound.
    """
    _anonymise(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name}: not valid ONNX ({error})") from error
    path.write_bytes(model.SerializeToString(deterministic=True))
    return bundle.Graph(
        file=path.name,
        opset=next(entry.version for entry in model.opset_import if entry.domain == ""),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        parity=measure_parity(graph, path, feeds, settled),
    )


def trace(graph: nn.Module, feeds: Mapping[str, Array], name: str) -> onnx.ModelProto:
    """The ONNX model of a PyTorch graph; the first axis of every input and output is dynamic.

    Args:
        graph: its `outputs` are the names of its results.
        feeds: arguments by name, two rows or more.
        name: of the file, for messages.
    """
    example = {name: torch.from_numpy(array[:2]) for name, array in feeds.items()}  # 0 and 1 would be constants
    batch = torch.export.Dim("N")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            kwargs=example,
            input_names=list(feeds),
            output_names=list(cast(Sequence[str], graph.outputs)),
            opset_version=OPSET,
            dynamic_shapes={name: {0: batch} for name in feeds},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{name}: the exporter returned no program")
    return program.model_proto


def _tensor(value: onnx.ValueInfoProto) -> bundle.Tensor:
    kind = value.type.tensor_type
    return bundle.Tensor.model_validate(
        {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            "shape": tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim),
        }
    )


def _anonymise(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they contain paths of the machine, and the digest must not depend on them."""
    graph = model.graph
    messages: Sequence[Any] = (
        model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer
    )  # fmt: skip
    for message in messages:
        message.ClearField("metadata_props")
        message.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of torch's exporter about its own deprecations and about libraries that Duet does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def some_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As many images as the largest batch of the parity check, spread over all."""
    return np.resize(images[spread(len(images), max(BATCH_SIZES))], (max(BATCH_SIZES), *images.shape[1:]))


def _latents(module: Any) -> NDArray[np.float32]:
    return philox(0).standard_normal((max(BATCH_SIZES), module.latent_size), dtype=np.float32)
