"""Inputs and outputs of each kind of model in V2: metadata, and the conversion of tensors for the data plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import numpy as np

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import ACTIVATION, Classifier
from services.inference.generator import Generator
from services.inference.model import Model
from services.inference.noise import SEED_LIMIT, fresh_seed, latents
from services.inference.scorer import MAP, Scorer
from services.protocol.answers import check_drawn, class_index, saliency
from services.protocol.schemas import Policy
from services.protocol.scoring import Judge, scored
from services.protocol.v2.arguments import choice, given_images, integer, number
from services.protocol.v2.inference import InferRequest, short
from services.protocol.v2.tensors import datatype, strings
from services.settings import Settings
from services.telemetry import metrics
from services.telemetry.call import Call

Arrays = dict[str, np.ndarray]
POLICIES = get_args(Policy)
Infer = Callable[[DataPlane, Any, InferRequest, Collection[str], Call], Awaitable[Arrays]]


@dataclass(frozen=True)
class Tensor:
    """An input or output in the metadata; -1 is a dynamic axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    asked: bool = False  # computed only if the request names it

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


@dataclass(frozen=True)
class Signature:
    """The V2 inputs and outputs of one model.

    Args:
        inputs: allowed inputs; `images` may also be FP32 pixels in 0..1 or BYTES of PNG or JPEG files.
        outputs: possible outputs; those not marked `asked` are the default.
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
        return _scorer_signature(model, images)
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


def _scorer_signature(model: Scorer, images: Tensor) -> Signature:
    optional = (
        Tensor("label", "BYTES", (-1,), asked=True),
        Tensor("class_p_value", "FP32", (-1,), asked=True),
        Tensor("statistics", "FP32", (-1, len(model.statistics)), asked=True),
        Tensor("look_alike", "UINT8", images.shape, asked=True),
    )
    outputs = (
        Tensor("p_value", "FP32", (-1,)),
        Tensor("anomalous", "BOOL", (-1,)),
        Tensor("score", "FP32", (-1,)),
        Tensor("residual", "FP32", (-1, *images.shape[2:]), asked=True),
        *(tensor for tensor in optional if tensor.name in model.optional),
    )
    return Signature((images,), outputs, _score)


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
    images = await given_images(request.inputs, model, plane.settings, call)
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
    alpha = number(request, "alpha", 0.05)
    if not 0 < alpha < 1:
        raise InvalidInput(f"parameters.alpha is {alpha}; send a number between 0 and 1", field="parameters.alpha")
    policy = cast("Policy", choice(request, "policy", POLICIES))
    judge = Judge(alpha, policy, choice(request, "per_class", (False, True)) is True, "parameters.")
    given = await given_images(request.inputs, model, plane.settings, call)
    outputs, verdicts = await scored(plane, model, given, judge, call, mapped=not MAP.isdisjoint(wanted))
    answer = outputs | {"anomalous": verdicts.anomalous}
    if "label" in wanted:
        answer["label"] = strings([model.class_names[index].encode() for index in outputs["label"].tolist()])
    return answer


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
                f"inputs.labels is missing; model {model.bundle.name} draws by class, so send the class of each image",
                field="inputs.labels",
            )
        images = {"images": await given_images(request.inputs, model, plane.settings, call)}
        noise, cacheable = (await plane.infer(model, "encode", images, call))["mean"], True
    else:
        noise, cacheable = _noise(model, request, plane.settings)
    inputs = {"latents": noise}
    if (labels := _labels(model, request, len(noise))) is not None:
        inputs["labels"] = labels
    if request.inputs.keys().isdisjoint(("images", "latents")):
        inputs["latents"] = model.latents(noise, labels)
    outputs: Arrays = {"latents": inputs["latents"]}
    if "images" in wanted:
        outputs |= await plane.infer(model, "decode", inputs, call, cacheable=cacheable)
        metrics.SAMPLES.labels(model.bundle.name).inc(len(noise))
    return outputs


def _noise(model: Generator, request: InferRequest, settings: Settings) -> tuple[np.ndarray, bool]:
    """Latents from the request, or drawn as in the native `/generate`; and whether they can be requested again."""
    given = request.inputs.get("latents")
    if given is not None:
        if given.dtype != np.float32 or given.ndim != 2 or given.shape[1] != model.latent_size:
            raise InvalidInput(
                f"inputs.latents is {datatype(given)} of shape {list(given.shape)}; send FP32 [n,{model.latent_size}]",
                field="inputs.latents",
            )
        if not np.isfinite(given).all():
            raise InvalidInput(
                "inputs.latents holds NaN or infinite values; send finite numbers", field="inputs.latents"
            )
        check_drawn(len(given), "inputs.latents", model, settings)
        return np.require(given, requirements="A"), True  # a binary tensor after JSON may be unaligned
    labels = request.inputs.get("labels")
    count = integer(request, "count", 1 if labels is None else labels.size)
    if count < 1:
        raise InvalidInput(f"count is {count}; send 1 or more", field="count")
    check_drawn(count, "count", model, settings)
    seed = integer(request, "seed", -1)
    fresh = "seed" not in request.inputs and "seed" not in request.parameters
    if not fresh and not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed is {seed}; send 0 to 2^63 - 1", field="seed")
    truncation = number(request, "truncation", 1.0)
    if not 0 < truncation <= 2:
        message = f"parameters.truncation is {truncation}; send a number above 0, up to 2"
        raise InvalidInput(message, field="parameters.truncation")
    noise = latents(fresh_seed() if fresh else seed, range(count), model.latent_size, truncation=truncation)
    return noise, not fresh


def _labels(model: Generator, request: InferRequest, count: int) -> np.ndarray | None:
    names = model.bundle.manifest.class_names
    given = request.inputs.get("labels")
    if not model.conditional:
        if given is not None:
            message = f"model {model.bundle.name} does not draw by class; leave inputs.labels out"
            raise InvalidInput(message, field="inputs.labels")
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
