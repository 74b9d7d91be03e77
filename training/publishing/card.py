"""The model card of a bundle (Mitchell et al., 2019): its origin, its measured quality, and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from services.inference.bundle import Bundle, Manifest, Tensor
from training.data.names import BUILT_IN, spec
from training.data.seen import RISK, TRUSTED
from training.evaluation.figures import Picture
from training.evaluation.generators.elbo import has_likelihood
from training.evaluation.tables import gates_table, metrics_table, parity_table

CARD = "card.md"
INT8 = ", int8 of "  # between the recipe of a quantised bundle and NAME:VERSION of its float32 source

SUMMARY = {
    "classification": "Predicts the class of an image.",
    "generation": "Draws images.",
    "anomaly": "Computes how unusual an image is, as a conformal p-value, and where, as a heat map. At each pixel, 1 % "
    "of normal images exceed the value 1 of the heat map.",
}

LIMITS = {
    "classification": (
        "It always predicts one of its classes, also for an image that shows none of them. If such images can occur, "
        "score them with an anomaly scorer first.",
        "It was not trained against adversarial images, and its robustness to them was not measured here.",
    ),
    "generation": (
        "Samples resemble the training data, with their flaws; they do not replace collected data.",
        "The cross-entropy of grey pixels is not a likelihood: compare it only on the same data.",
    ),
    "anomaly": (
        "A p-value is valid for images from the same distribution as the calibration images: at most a share alpha of "
        "them has p <= alpha, on average over calibration sets. It is not the probability that an image is anomalous.",
        "No p-value is below `smallest_p_value`, 1 / (calibration size + 1).",
        "The kinds of anomalies above are simple, and made from test images. An AUROC near 1 against them shows that "
        "the scorer works, not that it finds every anomaly. It does not find changes that the classifier was trained "
        "to ignore (for example mirrored images).",
        "It contains the classifier and the VAE that the manifest names under `parts`. With other parts it must be "
        "calibrated again.",
    ),
}

USE = {
    "classification": "sorting images of the same kind as the training data",
    "generation": "demonstrations, teaching, and augmentation after a check of the samples",
    "anomaly": "finding images that a classifier should not get, and drift in a stream of images",
}


def card(bundle: Bundle, pictures: Sequence[Picture], judge: Bundle | None = None) -> str:
    """The card in Markdown, without the bundle's digest, which covers the card. `judge` judged the samples."""
    manifest = bundle.manifest
    data = manifest.dataset
    splits = ", ".join(f"{count:,} {role}" for role, count in data.splits.items())
    image = manifest.image
    judged = f"- Judge of the samples: {judge.name}:{judge.version}, digest `{judge.digest}`\n" if judge else ""
    constants = "".join(f"- `{name}`: {value:.6g}\n" for name, value in manifest.constants.items())
    return f"""# {manifest.name}

{SUMMARY[manifest.task]}

- Network: {manifest.network}, recipe `{manifest.recipe}`, seed {manifest.seed}{_arithmetic(manifest)}
- Images: {image.channels} x {image.height} x {image.width} (channels, height, width), uint8
- Classes: {", ".join(manifest.class_names) or "none"}
- Data: {data.name}, digest `{data.digest}`
- Splits: {splits}
- Made by: `{_command(manifest, judge)}`
{judged}{constants}
## Metrics

{_tested(manifest)}

{"".join(f"![{caption}]({file}){chr(10)}{chr(10)}{caption}{chr(10)}{chr(10)}" for file, caption in pictures)}## Gates

Decided on the validation split, before the test split was measured. Figures of the validation split are a little
better than those of new images: training selected by them, or fitted to them.

{gates_table(manifest.gates)}

## Parity with {"scikit-learn" if "scikit-learn" in manifest.versions else "PyTorch"}

The difference of the element that is nearest to its bound, over all outputs and batch sizes.

{parity_table([bundle])}

## Intended use and limits

For {USE[manifest.task]}.

{chr(10).join(f"- {limit}" for limit in (*LIMITS[manifest.task], *_joint_limits(bundle), *_trusted(bundle)))}

## Use

{_call(manifest)}
"""


def _arithmetic(manifest: Manifest) -> str:
    return f", trained in {manifest.arithmetic}" if manifest.arithmetic else ""


def _tested(manifest: Manifest) -> str:
    if not manifest.metrics:
        return "Not measured, for the bundle missed a gate."
    return f"On the test split, by the ONNX graphs of this bundle.\n\n{metrics_table(manifest.metrics)}"


def _joint_limits(bundle: Bundle) -> tuple[str, ...]:
    """What `log_joint` is, for a generative classifier."""
    constants = bundle.manifest.constants
    if "log_joint" not in bundle.manifest.graphs:
        return ()
    draws = constants["log_joint_draws"]
    what = (
        f"`log_joint` is a lower bound on log p(x, y) in nats, importance-weighted over {draws:g} draws of z. The "
        "prior p(z|y) is a Gaussian for each class, fitted to the training images. All classes are equally likely. The "
        "log-sum-exp over the classes bounds log p(x); it differs from the bound with many draws by `log_joint_error` "
        "nats (root mean square). The probabilities come from the mean of q(z|x) instead."
    )
    if not has_likelihood(bundle):
        return (what, "The cross-entropy of grey pixels is not a likelihood: compare `log_joint` only with itself.")
    if "binarised" in constants:
        grey = "Of a grey image `log_joint` bounds the expectation over images with 0 or 1 drawn for each pixel."
        return (what, grey)
    return (what,)


def _trusted(bundle: Bundle) -> tuple[str, ...]:
    if TRUSTED not in bundle.manifest.recipe:
        return ()
    return (f"A stored model that it was made with is trusted, not checked (`--trust-parts`). {RISK}.",)


def _command(manifest: Manifest, judge: Bundle | None) -> str:
    """The command that makes the bundle again; the name of a folder stands for its path."""
    data = f"--dataset {spec(manifest.dataset.name)}"
    if manifest.dataset.name not in BUILT_IN:
        data += f" --image-size {manifest.image.height}{' --colour' if manifest.image.channels > 1 else ''}"
    recipe, _, source = manifest.recipe.partition(INT8)
    if source:
        return f"duet quantize {source} {data}"
    watched = f" --judge {judge.name}" if judge else ""
    given = "".join(
        f" --{role} {part.partition(':')[0]}"
        for role, part in manifest.parts.items()
        if role in ("classifier", "generator") and "-scorer-" not in part  # its own parts are trained again
    )
    return f"duet train {data} --recipe {recipe} --network {manifest.network} --seed {manifest.seed}{watched}{given}"


def _call(manifest: Manifest) -> str:
    """Python code that runs in the bundle's directory."""
    lines = ["import numpy as np", "import onnxruntime"]
    for graph in manifest.graphs.values():
        inputs = (f"{tensor.name!r}: np.zeros({_one(tensor)}, np.{tensor.dtype})" for tensor in graph.inputs)
        outputs = ", ".join(tensor.name for tensor in graph.outputs)
        lines += [
            "",
            f"session = onnxruntime.InferenceSession({graph.file!r})",
            f"{outputs} = session.run(None, {{{', '.join(inputs)}}})",
        ]
    return "\n".join(["```python", *lines, "```"])


def _one(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a batch of one."""
    return tuple(1 if isinstance(axis, str) else axis for axis in tensor.shape)
