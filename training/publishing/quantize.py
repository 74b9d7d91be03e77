"""int8: a classifier's graph with 8-bit weights and activations, calibrated again, as its own bundle.

Static quantisation with explicit QuantizeLinear and DequantizeLinear (B. Jacob et al., CVPR 2018, by ONNX Runtime's
tools). The ranges of activations come from training images, never from test images. The last layer, softmax, class
activation and prediction set stay in float32, so that the mean of the class activation is still the logit.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference import bundle as bundles
from services.inference.bundle import Bundle, Gate, Parity
from training.data import Dataset
from training.evaluation.classifiers.compare import BATCHES, Comparison, compare
from training.evaluation.compatibility import require_same
from training.export.int8 import CALIBRATION, QuantizationError, _calibrate, _quantize_graph
from training.graphs.inference import predict
from training.graphs.session import CHUNK
from training.publishing.card import CARD, INT8, card
from training.publishing.gates import check
from training.publishing.kind import Product
from training.publishing.report import assess, validate

SUFFIX = "-int8"
LOSS = 0.001  # largest allowed loss of accuracy on the validation split
CLASSIFY_CONSTANTS = ("temperature", "set_")


def quantize(product: Product, source: Bundle, dataset: Dataset, directory: Path) -> tuple[Bundle, Comparison]:
    """The bundle NAME-int8 below `directory`, sealed, and how it compares with `source`, both on the test split.

    It is accepted by the loss of accuracy on the validation split, before the test split is measured. The epoch of
    `source` may have been chosen by these images, which makes the loss look larger than it is, never smaller. The
    temperature, which is fitted on them too, does not change the predicted class.

    A temperature and a conformal threshold in the graph were fitted to the float32 probabilities: both are fitted again
    on the splits that they were fitted on, validation and calibration.

    Args:
        product: what `source` is.
        source: a classifier.
        dataset: the data that it was trained with.
        directory: parent of the bundle's folder.

    Raises:
        QuantizationError: `source` is no classifier, was trained with other data, has nothing to quantise, or loses
            more than 0.1 points of validation accuracy; nothing is sealed then.
        GateError: it misses another gate; nothing is sealed then.
        EvaluationError: images or classes of the data are not the bundle's.
    """
    manifest = source.manifest
    if manifest.task != "classification":
        raise QuantizationError(f"{source.name} is a bundle for {manifest.task}; give a classifier")
    require_same(source.name, source, dataset)
    if dataset.digest != manifest.dataset.digest:
        raise QuantizationError(
            f"{source.name} was trained with {manifest.dataset.name} (digest {manifest.dataset.digest[:12]}), but the "
            f"data are {dataset.name} ({dataset.digest[:12]}); give the data that it was trained with"
        )
    staged = directory / f".{source.name}{SUFFIX}.staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    path = staged / manifest.graphs["classify"].file
    _quantize_graph(source.graph_path("classify"), path, dataset.train.images)
    # Rounded weights would shift log_joint by nats, so int8 has the graph `classify` alone, and its constants.
    constants = {name: value for name, value in manifest.constants.items() if name.startswith(CLASSIFY_CONSTANTS)}
    constants = _calibrate(path, constants, dataset)
    draft = Bundle(
        staged,
        manifest.model_copy(
            update={
                "name": f"{source.name}{SUFFIX}",
                "recipe": f"{manifest.recipe}{INT8}{source.name}:{source.version}",
                "constants": constants,
                "versions": manifest.versions | {"onnxruntime": version("onnxruntime")},
                "files": {},
            }
        ),
    )
    parity = _parity(source, draft, dataset.test.images)
    graph = manifest.graphs["classify"].model_copy(update={"parity": parity})
    draft = _with(draft, graphs={"classify": graph})
    validated = validate(product, draft, dataset)
    loss = validate(product, source, dataset)["accuracy"] - validated["accuracy"]
    gate = Gate(metric="accuracy_loss", value=loss, bound=LOSS, direction="at most", split="validation")
    if not gate.passed:
        raise QuantizationError(
            f"{draft.name} is not stored: it loses {loss:.2%} of accuracy, and at most {LOSS:.1%} is allowed; "
            f"serve {source.name} in float32\n\n{compare(source, draft, dataset, 'validation').markdown()}"
        )
    decided = (*product.gates(draft.manifest, validated), gate)
    check([_with(draft, gates=decided).manifest])
    metrics, pictures = assess(product, draft, dataset, staged)
    comparison = compare(source, draft, dataset)
    lost = comparison.first.measured.accuracy - comparison.second.measured.accuracy
    draft = _with(draft, metrics=metrics | {"accuracy_loss": lost}, gates=decided)
    (staged / CARD).write_text(card(draft, pictures) + _note(source))
    bundles.seal(staged, draft.manifest)
    final = directory / draft.name
    shutil.rmtree(final, ignore_errors=True)
    staged.replace(final)
    return bundles.load(final), comparison


def wins(comparison: Comparison) -> bool:
    """Whether the second classifier, int8, is smaller and faster at every batch size."""
    fp32, int8 = comparison.first, comparison.second
    faster = all(int8.microseconds[batch] < fp32.microseconds[batch] for batch in BATCHES)
    return faster and int8.graph_bytes < fp32.graph_bytes


def _parity(fp32: Bundle, int8: Bundle, images: NDArray[np.uint8]) -> Parity:
    """The difference from the float32 graph over `images`, without a bound, because accuracy is gated."""
    ours, theirs = (predict(bundle, images)["probabilities"] for bundle in (fp32, int8))
    return Parity(
        batch_sizes=(CHUNK,),
        max_abs_diff=float(np.abs(ours - theirs).max()),
        bound=1.0,
        top1_agreement=float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
    )


def _with(draft: Bundle, **changes: object) -> Bundle:
    return Bundle(draft.path, draft.manifest.model_copy(update=changes))


def _note(source: Bundle) -> str:
    refitted = "The temperature was fitted again, on the validation split."
    if "set_threshold" in source.manifest.constants:
        refitted += " The threshold of the prediction sets was fitted again, on the calibration split."
    if "temperature" not in source.manifest.constants:
        refitted = "The source has no temperature, so the probabilities are not calibrated again."
    return f"""
## int8

Static quantisation of {source.name}:{source.version}, with ranges from at most {CALIBRATION} training images: 8-bit
activations, 7-bit weights by channel, the last layer in float32. The parity above is the difference from the float32
graph, not from PyTorch, over all test images. It has no bound; the gate is on accuracy of the
validation split. {refitted}
"""
