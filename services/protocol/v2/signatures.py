"""Inputs and outputs of each kind of model in V2: metadata, and the conversion of tensors for the data plane."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast, get_args

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import JOINT, Classifier
from services.inference.generator import Generator
from services.inference.noise import SEED_LIMIT, fresh_seed, latents
from services.inference.scorer import MAP, Scorer
from services.protocol.v2.arguments import choice, given_images, integer, number
from services.protocol.v2.inference import InferRequest, short
from services.protocol.v2.tensors import datatype, strings
from services.served import Arrays, Served
from services.settings import Settings
from services.tasks.anomaly import AnomalyPolicy, Policy, score_images
from services.tasks.classification import classify
from services.tasks.generation import decode_latents, encode_images
from services.tasks.limits import check_drawn, class_index
from services.tasks.samples import INLINE_ITEMS

POLICIES = get_args(Policy)
Infer = Callable[[DataPlane, Served[Any], InferRequest, Collection[str], Call], Awaitable[Arrays]]


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
        parameters: of a request.
        class_names: the labels of `classification` answers.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    infer: Infer
    parameters: tuple[str, ...]
    class_names: tuple[str, ...] = ()

    @cached_property
    def input_names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.inputs)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.outputs)

    @property
    def item_values(self) -> int:
        """The number of values of one item of the largest input."""
        return max(math.prod(tensor.shape[1:]) for tensor in self.inputs)

    @property
    def default_outputs(self) -> list[str]:
        return [output.name for output in self.outputs if not output.asked]


def _images(model: Classifier | Scorer | Generator) -> Tensor:
    return Tensor("images", "UINT8", (-1, *model.bundle.manifest.image.shape))


def of_classifier(model: Classifier) -> Signature:
    images = _images(model)
    classes = (-1, len(model.class_names))
    outputs = [
        Tensor("probabilities", "FP32", classes),
        Tensor("label", "BYTES", (-1,)),
        Tensor("logits", "FP32", classes, asked=True),
    ]
    if model.coverage is not None:
        outputs.append(Tensor("prediction_set", "UINT8", classes, asked=True))
    if model.joint is not None:
        outputs.append(Tensor(JOINT, "FP32", classes, asked=True))
    outputs += [Tensor(name, "FP32", (-1, *images.shape[2:]), asked=True) for name in model.explanations]
    return Signature((images,), tuple(outputs), _classify, ("explain_class",), model.class_names)


def of_scorer(model: Scorer) -> Signature:
    images = _images(model)
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
    return Signature((images,), outputs, _score, ("alpha", "policy", "per_class"))


def of_generator(model: Generator) -> Signature:
    images = _images(model)
    latent = Tensor("latents", "FP32", (-1, model.latent_size))
    inputs = [latent, Tensor("seed", "INT64", (1,)), Tensor("count", "INT64", (1,))]
    if model.conditional:
        inputs.append(Tensor("labels", "INT64", (-1,)))
    if model.can_encode:
        inputs.append(images)
    return Signature(tuple(inputs), (images, replace(latent, asked=True)), _generate, ("seed", "count", "truncation"))


async def _classify(
    plane: DataPlane, served: Served[Classifier], request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    model, joint = served.model, JOINT in wanted
    kinds = [kind for kind in model.explanations if kind in wanted]
    served.admit(JOINT if joint else kinds[0] if kinds else "classify", request.rows, call)
    images = await given_images(request.inputs, served, plane, call)
    explained = _explained_class(request, model) if kinds else None
    found = await classify(served, images, call, explanations=kinds, explained=explained, joint=joint)
    outputs = {**found.outputs, **found.maps}
    if found.log_joint is not None:
        outputs[JOINT] = found.log_joint
    if "label" in wanted:
        outputs["label"] = strings([model.class_names[index].encode() for index in found.best.tolist()])
    return outputs


def _explained_class(request: InferRequest, model: Classifier) -> int | None:
    """The class to explain: the parameter `explain_class`; None: the most probable one."""
    label = request.parameters.get("explain_class")
    if label is None:
        return None
    if type(label) not in (str, int):
        message = f"parameters.explain_class is {short(label)}; send a class name or index"
        raise InvalidInput(message, field="parameters.explain_class")
    return class_index(label, model.class_names, "parameters.explain_class")


async def _score(
    plane: DataPlane, served: Served[Scorer], request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    alpha = number(request, "alpha", 0.05)
    if not 0 < alpha < 1:
        raise InvalidInput(f"parameters.alpha is {alpha}; send a number between 0 and 1", field="parameters.alpha")
    rule = cast("Policy", choice(request, "policy", POLICIES))
    policy = AnomalyPolicy(alpha, rule, choice(request, "per_class", (False, True)) is True, "parameters.")
    mapped = not MAP.isdisjoint(wanted)
    served.admit("score_map" if mapped else "score", request.rows, call)
    given = await given_images(request.inputs, served, plane, call)
    outputs, verdicts = await score_images(served, given, policy, call, mapped=mapped)
    answer = outputs | {"anomalous": verdicts.anomalous}
    if "label" in wanted:
        names = served.model.class_names
        answer["label"] = strings([names[index].encode() for index in outputs["label"].tolist()])
    return answer


async def _generate(
    plane: DataPlane, served: Served[Generator], request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    model = served.model
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
        served.admit("encode", request.rows, call)
        noise = await encode_images(served, await given_images(request.inputs, served, plane, call), call)
        cacheable = True
    else:
        noise, cacheable = _noise(model, request, plane.settings)
    labels = _labels(model, request, len(noise))
    if request.inputs.keys().isdisjoint(("images", "latents")):
        noise = await plane.offload.run_if_large(partial(model.latents, noise, labels), call, len(noise), INLINE_ITEMS)
    outputs: Arrays = {"latents": noise}
    if "images" in wanted:
        served.admit("decode", len(noise), call)
        outputs["images"] = await decode_latents(served, noise, labels, call, cacheable=cacheable)
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
