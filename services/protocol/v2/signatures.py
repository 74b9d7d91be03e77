"""What each kind of model takes and gives in V2: metadata, and the way from tensors to the data plane and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import ACTIVATION, Classifier
from services.inference.generator import Generator
from services.inference.model import Model
from services.inference.noise import SEED_LIMIT, fresh_seed, latents
from services.inference.scorer import Scorer
from services.protocol.answers import check_count, check_drawn, class_index, read_images, saliency
from services.protocol.v2.inference import InferRequest, short
from services.protocol.v2.tensors import strings
from services.settings import Settings
from services.telemetry import metrics
from services.telemetry.call import Call

Arrays = dict[str, np.ndarray]
Infer = Callable[[DataPlane, Any, InferRequest, Collection[str], Call], Awaitable[Arrays]]


@dataclass(frozen=True)
class Tensor:
    """A line of metadata; -1 is a free axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    asked: bool = False  # computed only when it is asked for

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


@dataclass(frozen=True)
class Signature:
    """The V2 face of one model.

    Args:
        inputs: what may be sent; `images` is also taken as FP32 pixels in 0..1 and as BYTES of PNG or JPEG files.
        outputs: what may be asked for; those not marked `asked` are the default.
        infer: computes the named outputs.
        class_names: the labels of `classification` answers.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    infer: Infer
    class_names: tuple[str, ...] = ()

    @property
    def default_outputs(self) -> list[str]:
        return [output.name for output in self.outputs if not output.asked]


def signature(model: Model) -> Signature:
    images = Tensor("images", "UINT8", (-1, *model.bundle.manifest.image.shape))
    if isinstance(model, Classifier):
        return _classifier_signature(model, images)
    if isinstance(model, Scorer):
        scores = (
            Tensor("p_value", "FP32", (-1,)),
            Tensor("anomalous", "BOOL", (-1,)),
            Tensor("score", "FP32", (-1,)),
            Tensor("residual", "FP32", (-1, *model.bundle.manifest.image.shape[1:]), asked=True),
        )
        return Signature((images,), scores, _score)
    if isinstance(model, Generator):
        return _generator_signature(model, images)
    raise TypeError(f"no V2 signature for {type(model).__name__}")


def _classifier_signature(model: Classifier, images: Tensor) -> Signature:
    classes = (-1, len(model.class_names))
    outputs = [
        Tensor("probabilities", "FP32", classes),
        Tensor("label", "BYTES", (-1,)),
        Tensor("logits", "FP32", classes, asked=True),
    ]
    if model.coverage is not None:
        outputs.append(Tensor("prediction_set", "UINT8", classes, asked=True))
    explanations = [name for name in model.operations if name != "classify"]
    outputs += [Tensor(name, "FP32", (-1, *images.shape[2:]), asked=True) for name in explanations]
    return Signature((images,), tuple(outputs), _classify, model.class_names)


def _generator_signature(model: Generator, images: Tensor) -> Signature:
    latent = Tensor("latents", "FP32", (-1, model.latent_size))
    inputs = [latent, Tensor("seed", "INT64", (1,)), Tensor("count", "INT64", (1,))]
    if model.conditional:
        inputs.append(Tensor("labels", "INT64", (-1,)))
    if model.can_encode:
        inputs.append(images)
    return Signature(tuple(inputs), (images, replace(latent, asked=True)), _generate)


async def _classify(
    plane: DataPlane, model: Classifier, request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    images = await _images(request.inputs, model, plane.settings, call)
    operation = ACTIVATION if ACTIVATION in wanted else "classify"
    outputs = dict(await plane.infer(model, operation, {"images": images}, call))
    names = model.class_names
    best = outputs["probabilities"].argmax(axis=1)
    labels = [names[index] for index in best.tolist()]
    for label in labels:
        metrics.predictions(model.bundle.name, label).inc()
    if "label" in wanted:
        outputs["label"] = strings([label.encode() for label in labels])
    for kind in model.operations[1:]:
        if kind in wanted:
            explained = _explained(request, names, best)
            outputs[kind] = await saliency(plane, model, kind, images, explained, outputs, call)
    return outputs


def _explained(request: InferRequest, names: tuple[str, ...], best: np.ndarray) -> np.ndarray:
    """The classes to explain: the parameter `explain_class`, or the most probable ones."""
    label = request.parameters.get("explain_class")
    if label is None:
        return best
    if type(label) not in (str, int):
        message = f"parameters.explain_class is {short(label)}; send a class name or index"
        raise InvalidInput(message, field="parameters.explain_class")
    return np.full_like(best, class_index(label, names, "parameters.explain_class"))


async def _score(plane: DataPlane, model: Scorer, request: InferRequest, wanted: Collection[str], call: Call) -> Arrays:
    alpha = _number(request, "alpha", 0.05)
    if not 0 < alpha < 1:
        raise InvalidInput(f"parameters.alpha is {alpha}; send a number between 0 and 1", field="parameters.alpha")
    inputs = {"images": await _images(request.inputs, model, plane.settings, call)}
    outputs = await plane.infer(model, "score_map" if "residual" in wanted else "score", inputs, call)
    p_values = metrics.P_VALUES.labels(model.bundle.name)
    for p_value in outputs["p_value"].tolist():
        p_values.observe(p_value)
    return outputs | {"anomalous": outputs["p_value"] <= alpha}


async def _generate(
    plane: DataPlane, model: Generator, request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    if "images" in request.inputs:
        if not model.can_encode:
            raise InvalidInput(
                f"model {model.bundle.name} has no encoder; send latents or a seed", field="inputs.images"
            )
        if model.conditional and "labels" not in request.inputs:
            raise InvalidInput(
                f"model {model.bundle.name} draws by class: inputs.labels says as which", field="inputs.labels"
            )
        images = {"images": await _images(request.inputs, model, plane.settings, call)}
        noise, cacheable = (await plane.infer(model, "encode", images, call))["mean"], True
    else:
        noise, cacheable = _noise(model, request, plane.settings)
    inputs = {"latents": noise}
    if (labels := _labels(model, request, len(noise))) is not None:
        inputs["labels"] = labels
    outputs: Arrays = {"latents": noise}
    if "images" in wanted:
        outputs |= await plane.infer(model, "decode", inputs, call, cacheable=cacheable)
        metrics.SAMPLES.labels(model.bundle.name).inc(len(noise))
    return outputs


def _noise(model: Generator, request: InferRequest, settings: Settings) -> tuple[np.ndarray, bool]:
    """Latents as given, or drawn as the native `/generate` draws them; and whether they can come again."""
    given = request.inputs.get("latents")
    if given is not None:
        if given.dtype != np.float32 or given.ndim != 2 or given.shape[1] != model.latent_size:
            raise InvalidInput(
                f"inputs.latents has shape {list(given.shape)}; send FP32 [n,{model.latent_size}]",
                field="inputs.latents",
            )
        if not np.isfinite(given).all():
            raise InvalidInput("inputs.latents holds values that are not finite", field="inputs.latents")
        check_drawn(len(given), "inputs.latents", model, settings)
        return np.require(given, requirements="A"), True  # a binary tensor begins wherever the JSON before it ends
    labels = request.inputs.get("labels")
    count = _integer(request, "count", 1 if labels is None else labels.size)
    if count < 1:
        raise InvalidInput(f"count is {count}; send 1 or more", field="count")
    check_drawn(count, "count", model, settings)
    seed = _integer(request, "seed", -1)
    fresh = "seed" not in request.inputs and "seed" not in request.parameters
    if not fresh and not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed is {seed}; send 0 to 2^63 - 1", field="seed")
    truncation = _number(request, "truncation", 1.0)
    if not 0 < truncation <= 2:
        raise InvalidInput(f"truncation is {truncation}; send a number above 0, up to 2", field="parameters.truncation")
    noise = latents(fresh_seed() if fresh else seed, range(count), model.latent_size, truncation=truncation)
    return noise, not fresh


def _labels(model: Generator, request: InferRequest, count: int) -> np.ndarray | None:
    names = model.bundle.manifest.class_names
    given = request.inputs.get("labels")
    if not model.conditional:
        if given is not None:
            raise InvalidInput(f"model {model.bundle.name} does not draw by class", field="inputs.labels")
        return None
    if given is None:
        return model.classes_in_turn(count)
    if given.shape not in ((count,), (1,)) or given.dtype.kind not in "iO":
        raise InvalidInput(
            f"inputs.labels has shape {list(given.shape)}; send INT64 or BYTES [{count}] or [1]", field="inputs.labels"
        )
    indices = [
        class_index(
            label.decode("utf-8", "replace") if isinstance(label, bytes) else int(label), names, "inputs.labels"
        )
        for label in given.tolist()
    ]
    return np.resize(np.array(indices, np.int64), count)


async def _images(inputs: Arrays, model: Model, settings: Settings, call: Call) -> np.ndarray:
    """The `images` input as uint8 [N,C,H,W], wholly validated."""
    given = inputs.get("images")
    if given is None:
        raise InvalidInput(
            f"inputs: images is missing; there is {', '.join(inputs)[:80] or 'none'}", field="inputs.images"
        )
    shape = model.bundle.manifest.image.shape
    if given.dtype.kind == "O":
        if given.ndim != 1 or not len(given):
            raise InvalidInput(f"inputs.images has shape {list(given.shape)}; BYTES is [n]", field="inputs.images")
        with call.stage("decode"):
            return await read_images([_file(value) for value in given], model, settings, "inputs.images")
    if given.shape[1:] != shape or not len(given):
        raise InvalidInput(
            f"inputs.images has shape {list(given.shape)}; this model takes [n,{','.join(map(str, shape))}]",
            field="inputs.images",
        )
    check_count(len(given), "inputs.images", settings.request_items)
    if given.dtype == np.uint8:
        return given
    if given.dtype != np.float32:
        raise InvalidInput("inputs.images takes UINT8, FP32 (pixels in 0..1) or BYTES (files)", field="inputs.images")
    if not (given.min() >= 0 and given.max() <= 1):  # NaN fails this too
        raise InvalidInput("inputs.images holds FP32 values outside 0..1", field="inputs.images")
    # A product of 255 and k/255 rounds to k, so FP32 and UINT8 of one image are the same image.
    return np.rint(given * np.float32(255)).astype(np.uint8)


def _file(value: bytes) -> bytes | str:
    """A PNG or JPEG file, or base64 of one: in JSON, BYTES are text."""
    return value if value[:1] in (b"\x89", b"\xff") else value.decode("latin-1")


def _number(request: InferRequest, name: str, default: float) -> float:
    value = request.parameters.get(name, default)
    if type(value) not in (int, float):
        raise InvalidInput(f"parameters.{name} is {short(value)}; send a number", field=f"parameters.{name}")
    return float(value)


def _integer(request: InferRequest, name: str, default: int) -> int:
    """A number given as a tensor of one element, or as a parameter."""
    tensor = request.inputs.get(name)
    if tensor is not None:
        if tensor.size != 1 or tensor.dtype.kind not in "iu":
            raise InvalidInput(f"inputs.{name} has shape {list(tensor.shape)}; send INT64 [1]", field=f"inputs.{name}")
        return int(tensor.item())
    value = request.parameters.get(name, default)
    if type(value) is not int:
        raise InvalidInput(f"parameters.{name} is {short(value)}; send an integer", field=f"parameters.{name}")
    return value
