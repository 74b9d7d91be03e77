"""A bundle of finished graphs: what an exporter returns, and the manifest that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.inference import bundle
from training.data import Dataset
from training.data.seen import recorded

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
SCIKIT_LEARN = ("scikit-learn", "skl2onnx")


@dataclass(frozen=True)
class Exported:
    """What an exporter makes of a network.

    Args:
        graphs: the graphs by name; their files are written.
        constants: what the graphs were calibrated with.
        latent_size: numbers in a latent, for generators.
        statistics: names of a scorer's statistics.
        parts: NAME:DIGEST of the bundles whose weights are in the graphs, by role.
    """

    graphs: dict[str, bundle.Graph]
    constants: dict[str, float] = field(default_factory=dict)
    latent_size: int | None = None
    statistics: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)


Export = Callable[[Any, Dataset, Path], Exported]  # the network, the data it was trained with, where files are written


def export_bundle(
    export: Export,
    module: Any,
    dataset: Dataset,
    *,
    name: str,
    task: bundle.Task,
    network: str,
    recipe: str,
    seed: int,
    directory: Path,
    arithmetic: bundle.Arithmetic = "",
    libraries: tuple[str, ...] = LIBRARIES,
) -> bundle.Bundle:
    """A bundle of graphs in `directory` (created if needed), without metrics, card and digest.

    Args:
        export: writes the graphs.
        module: what it exports.
        dataset: the data that `module` was trained with.
        name: of the bundle.
        task: which service serves it.
        network: name of the kind of network.
        recipe: name of its recipe.
        seed: of its training.
        directory: of the bundle.
        arithmetic: of its training.
        libraries: whose versions the manifest records.

    Raises:
        ExportError: a graph differs from `module` by more than its bound.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = export(module, dataset, directory)
    channels, height, width = dataset.image_shape
    manifest = bundle.Manifest(
        name=name,
        task=task,
        network=network,
        recipe=recipe,
        seed=seed,
        arithmetic=arithmetic,
        dataset=recorded(dataset),
        image=bundle.Image(channels=channels, height=height, width=width),
        class_names=dataset.class_names,
        latent_size=made.latent_size,
        constants=made.constants,
        statistics=made.statistics,
        parts=dict(made.parts),
        graphs=made.graphs,
        metrics={},
        versions={library: version(library) for library in libraries},
    )
    return bundle.Bundle(directory, manifest)
