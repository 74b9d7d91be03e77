"""The model card of a bundle (Mitchell et al., 2019): what it is, what it was measured to do, and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from services.inference.bundle import Bundle, Manifest, Tensor
from training.evaluation.pictures import Picture
from training.evaluation.tables import gates_table, metrics_table, parity_table

CARD = "card.md"
INT8 = ", int8 of "  # between the recipe of a quantised bundle and NAME:VERSION of what was quantised

SUMMARY = {
    "classification": "Tells the class of an image.",
    "generation": "Draws images.",
    "anomaly": "Says how unusual an image is, as a conformal p-value, and where, as a map in which 1 is more than 99 % "
    "of normal images have there.",
}

LIMITS = {
    "classification": (
        "It always names one of its classes, also for an image that shows none of them; ask the scorer first where "
        "that can happen.",
        "Nothing was done or measured against adversarial images.",
    ),
    "generation": (
        "Samples resemble the training data, their flaws included; they are no substitute for collected data.",
        "The cross-entropy of grey pixels is not a likelihood: compare it only on the same data.",
    ),
    "anomaly": (
        "A p-value is valid for images drawn like the calibration images: among those, at most a share alpha scores "
        "p <= alpha on average over calibration sets. It is not the probability that an image is anomalous.",
        "No p-value is below `smallest_p_value`, 1 / (calibration size + 1).",
        "The kinds above are simple ones, made from test images: an AUROC near 1 against them says that the scorer "
        "works, not that it finds every anomaly. What the classifier was taught to overlook (mirrored images, where it "
        "was trained with them) goes unseen.",
        "The classifier and the VAE inside are those named under `parts` in the manifest; with others it has to be "
        "calibrated again.",
    ),
}

USE = {
    "classification": "sorting images of the same kind as the training data",
    "generation": "demonstrations, teaching, augmentation after a look at the samples",
    "anomaly": "guarding a classifier, watching a stream of images for drift",
}


def card(bundle: Bundle, pictures: Sequence[Picture], judge: Bundle | None = None) -> str:
    """Markdown; the bundle's digest is not in it, for it covers the card. `judge` is what judged the samples."""
    manifest = bundle.manifest
    data = manifest.dataset
    splits = ", ".join(f"{count:,} {role}" for role, count in data.splits.items())
    image = manifest.image
    judged = f"- Judge of the samples: {judge.name}:{judge.version}, digest `{judge.digest}`\n" if judge else ""
    constants = "".join(f"- `{name}`: {value:.6g}\n" for name, value in manifest.constants.items())
    return f"""# {manifest.name}

{SUMMARY[manifest.task]}

- Network: {manifest.network}, recipe `{manifest.recipe}`, seed {manifest.seed}
- Images: {image.channels} x {image.height} x {image.width} (channels, height, width), uint8
- Classes: {", ".join(manifest.class_names) or "none"}
- Data: {data.name}, digest `{data.digest}`
- Splits: {splits}
- Made by: `{_command(manifest, judge)}`
{judged}{constants}
## Metrics

On the test split, by the ONNX graphs of this bundle.

{metrics_table(manifest.metrics)}

{"".join(f"![{caption}]({file}){chr(10)}{chr(10)}{caption}{chr(10)}{chr(10)}" for file, caption in pictures)}## Gates

{gates_table(manifest.gates)}

## Parity with {"scikit-learn" if manifest.network in ("logistic", "svm") else "PyTorch"}

The difference of the element that comes nearest to its bound, over all outputs and batch sizes.

{parity_table([bundle])}

## Intended use and limits

For {USE[manifest.task]}.

{chr(10).join(f"- {limit}" for limit in LIMITS[manifest.task])}

## Use

{_call(manifest)}
"""


def _command(manifest: Manifest, judge: Bundle | None) -> str:
    """What makes it again; the name of a folder stands for its path."""
    data = f"--dataset {manifest.dataset.name}"
    if manifest.dataset.name not in ("digits", "mnist", "fashion-mnist"):
        colour = " --colour" if manifest.image.channels > 1 else ""
        data = f"--dataset folder:{manifest.dataset.name} --image-size {manifest.image.height}{colour}"
    recipe, _, source = manifest.recipe.partition(INT8)
    if source:
        return f"duet quantize {source} {data}"
    watched = f" --judge {judge.name}" if judge else ""
    given = "".join(
        f" --{role} {part.partition(':')[0]}"
        for role, part in manifest.parts.items()
        if role in ("classifier", "generator") and "-scorer-" not in part  # what it trained for itself comes again
    )
    return f"duet train {data} --recipe {recipe} --network {manifest.network} --seed {manifest.seed}{watched}{given}"


def _call(manifest: Manifest) -> str:
    """Python that runs as it stands in the bundle's directory."""
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
