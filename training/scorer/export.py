"""A scorer's `score.onnx`: its parts and fitted tables in one graph, calibrated, and compared with the parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data import Dataset
from training.data.arrays import Array, evenly_spaced
from training.export.bundle import Exported
from training.export.parity import BATCH_SIZES, as_shipped
from training.export.trace import save, trace
from training.graphs.session import ExportError, open_graph, run
from training.scorer.components import FindDefects, Measure, Parts, features_of, pieces
from training.scorer.fit import Scorer, assemble, calibrated, constants, filled, fit, unmeasured
from training.scorer.head import ScoreHead, p_value
from training.scorer.transformations import Views


def export_scorer(parts: Parts, dataset: Dataset, directory: Path) -> Exported:
    """`score.onnx` in `directory`, the constants, the names of the statistics, and the digests of the parts.

    The calibration scores come from the exported graph, not from PyTorch: a difference in the last bit changes ranks.

    Raises:
        ExportError: a split is empty, the parts do not fit, or the graph differs from its parts.
    """
    for role, count in dataset.splits.items():
        if not count:
            raise ExportError(f"score: the {role} split of {dataset.name} is empty; give it at least one image")
    some = dataset.test.images[evenly_spaced(len(dataset.test), max(BATCH_SIZES))]
    example = {"images": np.resize(some, (max(BATCH_SIZES), *dataset.image_shape))}
    defects = trace(as_shipped(FindDefects(parts.defects)), example, "defects")
    views = trace(Views(), example, "views") if parts.views is not None else None
    found = pieces(parts, defects, views)
    measure = Measure(parts, found)
    scorer = fit(parts, dataset, measure)
    made = {name: array for name, array in measure(example["images"]).items() if name in parts.made()}
    # Traced once, which takes seconds: the table of p-values is filled in when the calibration scores are known.
    empty = unmeasured(scorer, len(dataset.calibration)).fuse
    fuse = trace(empty, made, "fuse")
    bare = assemble(scorer, found, fuse)
    calibration = run(open_graph(bare.SerializeToString()), {"images": dataset.calibration.images})
    scorer = calibrated(scorer, calibration["score"], calibration.get("label"))
    model = assemble(scorer, found, filled(fuse, empty, scorer.fuse))
    graph = save(model, directory / "score.onnx", (apart := ReferenceScorer(scorer)), example, apart.recompute_steps)
    folded = run(open_graph(directory / "score.onnx"), {"images": dataset.calibration.images})["score"]
    if not np.array_equal(folded, calibration["score"]):
        raise ExportError(
            f"score: with the table of p-values, {len(folded)} calibration scores differ by up to "
            f"{np.abs(folded - calibration['score']).max():.3g} (bound 0), so p-values would be wrong"
        )
    return Exported(
        {"score": graph},
        constants(scorer, dataset, calibration),
        statistics=scorer.fuse.statistics.names,
        parts=parts.digests,
    )


class ReferenceScorer:
    """The reference for the one graph: each part runs alone, and the last stage runs in PyTorch."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.fuse: ScoreHead = as_shipped(scorer.fuse)
        parts = scorer.parts
        self.defects = as_shipped(FindDefects(parts.defects))
        self.encode, self.decode = (open_graph(parts.generator.graph_path(name)) for name in ("encode", "decode"))
        if parts.classifier is not None:
            self.classify = features_of(parts.classifier, "logits", "features", "texture")
        if parts.views is not None:
            self.views = features_of(parts.views, "features")
        self.outputs = (*self.fuse.outputs, *(("label",) if parts.classifier is not None else ()))

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        parts, given = self.scorer.parts, {"images": images.numpy()}
        made = {"images": images, "defects": self.defects(images)[0]}
        made["mean"] = torch.from_numpy(run(self.encode, given)["mean"])
        feeds = {"latents": made["mean"].numpy()}
        label: Array | None = None
        if parts.classifier is not None:
            classified = run(self.classify, given)
            made |= {name: torch.from_numpy(array) for name, array in classified.items()}
            label = classified["logits"].argmax(axis=1)
            if parts.conditional:
                feeds["labels"] = label
        if parts.views is not None:
            views = run(self.views, {"images": Views()(images)[0].numpy()})["features"]
            made["views"] = torch.from_numpy(views.reshape(len(images), -1, views.shape[1]))
        made["pixels"] = torch.from_numpy(run(self.decode, feeds)["pixels"])
        results: tuple[Tensor, ...] = self.fuse(**made)
        return results if label is None else (*results, torch.from_numpy(label))

    def recompute_steps(self, actual: Mapping[str, Array]) -> dict[str, Array]:
        """p-values at the scores of the exported file, because p-values jump at each calibration score."""
        score = torch.from_numpy(actual["score"])
        at_least = self.fuse.scores >= score[:, None]
        values = {"p_value": p_value(at_least, len(self.fuse.scores)).numpy()}
        if self.fuse.by_class:
            label = torch.from_numpy(actual["label"])
            same = at_least & (self.fuse.labels == label[:, None])
            values["class_p_value"] = p_value(same, self.fuse.counts[label]).numpy()
        return values
