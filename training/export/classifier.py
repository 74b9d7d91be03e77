"""Export of classifiers."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from training.data import Dataset
from training.export.bundle import Exported
from training.export.parity import as_shipped, top1_agreement
from training.export.trace import UNKNOWN, _fill, _model, save, some_images
from training.export.wrappers import Classify
from training.graphs.session import ExportError, open_graph, run
from training.metrics.calibration import fit_temperature
from training.metrics.conformal import COVERAGE, set_threshold


def export_classifier(cnn: nn.Module, dataset: Dataset, directory: Path) -> Exported:
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
    exported = save(model, path, graph, feeds, graph.recompute_steps)
    parity = exported.parity.model_copy(update={"top1_agreement": top1_agreement(graph, path, dataset.test.images)})
    constants = {
        "temperature": temperature,
        "set_coverage": COVERAGE,
        "set_threshold": threshold,
        "set_calibration_size": float(len(calibration)),
    }
    return Exported({"classify": exported.model_copy(update={"parity": parity})}, constants)
