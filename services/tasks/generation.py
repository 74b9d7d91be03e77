"""Generation: images of latents, latents of images, and what lies between."""

from __future__ import annotations

import numpy as np

from services.call import Call
from services.errors import InvalidInput
from services.inference.generator import Generator
from services.served import Served
from services.tasks.limits import class_index
from services.telemetry import metrics


async def encode_images(served: Served[Generator], images: np.ndarray, call: Call) -> np.ndarray:
    """The latents float32 [N,D] of images uint8 [N,C,H,W]: the means of the approximate posterior."""
    return (await served.infer("encode", {"images": images}, call))["mean"]


async def decode_latents(
    served: Served[Generator],
    noise: np.ndarray,
    labels: np.ndarray | None,
    call: Call,
    *,
    cacheable: bool = True,
) -> np.ndarray:
    """Images uint8 [N,C,H,W] of latents float32 [N,D] and classes int64 [N]."""
    inputs = {"latents": noise} if labels is None else {"latents": noise, "labels": labels}
    images = (await served.infer("decode", inputs, call, cacheable=cacheable))["images"]
    if not call.trial:
        metrics.SAMPLES.labels(served.entry.name, served.entry.version).inc(len(images))
    return images


async def every_class(served: Served[Generator], mean: np.ndarray, classes: range, call: Call) -> np.ndarray:
    """Images uint8 [N,K,C,H,W] of latents float32 [N,D], each drawn as each of the classes."""
    labels = np.tile(np.array(classes, np.int64), len(mean))
    drawn = await decode_latents(served, np.repeat(mean, len(classes), axis=0), labels, call)
    return drawn.reshape(len(mean), len(classes), *drawn.shape[1:])


async def nearest_class(
    served: Served[Generator], originals: np.ndarray, mean: np.ndarray, call: Call
) -> tuple[np.ndarray, np.ndarray]:
    """Decode each image as every class; return the decoded image nearest to the original, and its class [N]."""
    drawn = await every_class(served, mean, range(classes_of(served.model)), call)
    errors = squared_errors(originals[:, None], drawn)
    best = errors.argmin(axis=1)
    return drawn[np.arange(len(best)), best], best


def classes_of(model: Generator) -> int:
    """The number of classes that a model draws, at least 1."""
    return max(1, len(model.bundle.manifest.class_names))


def squared_errors(originals: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, pixels scaled to 0..1: the mean over the last three axes."""
    difference = (originals.astype(np.float32) - images.astype(np.float32)) / 255
    errors: np.ndarray = (difference**2).mean(axis=(-3, -2, -1))
    return errors


def labels_of(model: Generator, label: str | int | None, count: int) -> np.ndarray | None:
    """Class indices int64 [count]: the requested class, or all in turn; None for an unconditional model."""
    names = model.bundle.manifest.class_names
    if not model.conditional:
        if label is not None:
            raise InvalidInput(
                f"class: model {model.bundle.name} does not draw by class; leave class out", field="class"
            )
        return None
    if label is None:
        return model.classes_in_turn(count)
    return np.full(count, class_index(label, names), np.int64)


def names_of(model: Generator, labels: np.ndarray | None) -> list[str] | None:
    names = model.bundle.manifest.class_names
    return None if labels is None or not names else [names[label] for label in labels]
