"""Transfer: training starts from the weights of a stored classifier of other data, not from random weights."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from services.inference import registry
from services.inference.bundle import Bundle, BundleError
from training.loops.classifier import CNNRecipe
from training.networks.residual_cnn import ResidualCNN, ResidualCNNConfig

SLOWER = 0.3  # share of the recipe's learning rate for fine-tuning: large steps would destroy the transferred weights
# Training only the last layer is a convex problem, and the recipe's learning rate would be too small for it. Selected
# from 0.003 to 0.3 on the validation split of the digits, from Fashion-MNIST and from MNIST.
LAST_LAYER = 0.1


class FixedStatistics(nn.Sequential):
    """Layers whose batch normalisations use fixed statistics: they stay affine maps."""

    def train(self, mode: bool = True) -> FixedStatistics:
        return super().train(False)


@dataclass(frozen=True)
class TransferConfig:
    """A residual network whose convolutions start with the weights of a stored classifier; its last layer is new.

    Args:
        network: the sizes of both networks.
        source: NAME:VERSION of the classifier; the version begins its digest.
        frozen: train only the last layer.
    """

    network: ResidualCNNConfig
    source: str
    frozen: bool

    def build(self, image_shape: tuple[int, int, int], classes: int) -> ResidualCNN:
        """Raises ValueError if the classifier takes images of other channels or has other weights."""
        network = self.network.build(image_shape, classes)
        bundle = registry.load(self.source)
        theirs = bundle.manifest.image.channels
        if theirs != image_shape[0]:
            raise ValueError(f"{self.source} takes images of {theirs} channels, but the data have {image_shape[0]}")
        weights = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in onnx.load(bundle.graph_path("classify")).graph.initializer
        }
        _fill(network.layers, weights, self.source)
        network.layers = FixedStatistics(*network.layers)
        network.layers.requires_grad_(not self.frozen)
        return network


def transfer(recipe: CNNRecipe, source: str, *, frozen: bool) -> CNNRecipe:
    """`recipe`, with the network of the stored classifier `source` and its weights to start from.

    Raises:
        BundleError: there is no such bundle, or it does not verify.
        ValueError: it is no residual network in float32.
    """
    entry = registry.find(source)
    bundle = registry.load(entry.tag)
    sizes = _sizes(bundle)
    if sizes is None:
        raise ValueError(
            f"{entry.tag} is a {bundle.manifest.network} of recipe {bundle.manifest.recipe}, but training can start "
            "only from residual networks in float32; choose a bundle from `duet train --recipe demo` or `--recipe "
            "reference`"
        )
    recipe = replace(recipe, network=TransferConfig(sizes, entry.tag, frozen))
    if frozen:
        return replace(recipe, optimizer="adam", learning_rate=LAST_LAYER)
    return replace(recipe, learning_rate=SLOWER * recipe.learning_rate)


def _sizes(bundle: Bundle) -> ResidualCNNConfig | None:
    """The sizes of the residual network in the bundle's graph; None if there is none.

    They are read from the weights, not from the recipe: a transferred network has the sizes of its source.
    """
    if "classify" not in bundle.manifest.graphs:
        return None
    graph = onnx.load(bundle.graph_path("classify")).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    blocks = sum(re.fullmatch(r"cnn\.layers\.\d+\.layers\.0\.weight", name) is not None for name in shapes)
    if not blocks or "cnn.layers.0.weight" not in shapes:
        return None
    return ResidualCNNConfig(channels=shapes["cnn.layers.0.weight"][0], blocks=blocks // 2)


@torch.no_grad()
def _fill(layers: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Give each convolution its exported weights, and the normalisation after it the exported bias.

    The exporter folds a normalisation into the convolution before it, which leaves weights and a bias. So here gain
    and statistics of the normalisation are set to the map x -> x + bias.
    """
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, module in layers.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = (f"cnn.layers.{name}.weight", module)
        elif isinstance(module, nn.BatchNorm2d) and convolution is not None:
            key, before = convolution
            weight, bias = weights.get(key), weights.get(f"{key}_bias")
            if weight is None or bias is None or weight.shape != before.weight.shape:
                raise BundleError(
                    f"{source}: its graph has no {key} of shape {list(before.weight.shape)} with a bias (the recipe "
                    "has changed, or the bundle is quantised); choose another bundle, or train it again"
                )
            before.weight.copy_(weight)
            _shift(module, bias)


def _shift(normalisation: Any, bias: Tensor) -> None:
    """Set it to x -> x + bias."""
    normalisation.weight.fill_(1.0)
    normalisation.bias.copy_(bias)
    normalisation.running_mean.zero_()
    normalisation.running_var.fill_(1 - normalisation.eps)
