"""Whether a stored model may have seen the images that a new one is calibrated and tested with."""

from __future__ import annotations

from services.inference.bundle import Bundle, Data
from training.data.dataset import Dataset

HELD_OUT = ("calibration", "test")
TRUSTED = " --trust-parts"  # in the recipe of a model that was made with a part that is not known to be apart
RISK = (
    "Images that are calibration or test images here may have been training images there; then p-values are too small, "
    "with more false alarms than alpha, and metrics are too good"
)


class SeenError(ValueError):
    """A stored model may have seen held-out images; the message says why, what that risks, and the remedy."""


def recorded(dataset: Dataset) -> Data:
    """What the manifest of a model records of the data that it was trained with."""
    return Data(
        name=dataset.name,
        digest=dataset.digest,
        splits=dataset.splits,
        images=dataset.images_digest,
        split_digests=dataset.split_digests,
    )


def may_have_seen(bundle: Bundle, dataset: Dataset) -> str | None:
    """Why `bundle` may have been trained with calibration or test images of `dataset`; None if it was not.

    A model is known to be apart if its own data had these images in the same held-out splits: nothing is trained with
    them. Training images may differ, for instance by generated ones.
    """
    manifest, theirs = bundle.manifest, bundle.manifest.dataset
    if TRUSTED in manifest.recipe:
        return "it was made with --trust-parts, so what it has seen is not known"
    if theirs.digest == dataset.digest:
        return None
    other = f"it was trained with {theirs.name} (digest {theirs.digest[:12]}), not with {_named(dataset)}"
    if not theirs.split_digests:
        return f"{other}, and its manifest, of an older version, does not record which images it was trained with"
    if all(theirs.split_digests.get(role) == dataset.split_digests[role] for role in HELD_OUT):
        return None
    if theirs.images == dataset.images_digest:
        return f"it was trained with the same images, split otherwise, as {theirs.name} (digest {theirs.digest[:12]})"
    return other


def require_apart(option: str, bundle: Bundle, dataset: Dataset, *, trusted: bool | None) -> bool:
    """Refuse a stored model that may have seen held-out images of `dataset`, unless it is `trusted`.

    Args:
        option: that gave the model, for the message.
        bundle: the model.
        dataset: what it shall help to train, calibrate or judge.
        trusted: the user takes the risk; None where that cannot be chosen.

    Returns:
        Whether it is only trusted, and not known to be apart.

    Raises:
        SeenError: it is not known to be apart, and not trusted.
    """
    why = may_have_seen(bundle, dataset)
    if why is None or trusted:
        return why is not None
    choice = "" if trusted is None else ", or take the risk with --trust-parts"
    raise SeenError(
        f"{option} {bundle.name}:{bundle.version}: {why}. {RISK}. Give a model that was trained with these data{choice}"
    )


def require_other(source: Bundle, dataset: Dataset, *, trusted: bool | None) -> bool:
    """`require_apart` for a classifier to start from: it is meant to be of other data, but not of these, split anew.

    Data with another name are other data, if the images are not the same.
    """
    theirs = source.manifest.dataset
    if theirs.name != dataset.name and theirs.images != dataset.images_digest and TRUSTED not in source.manifest.recipe:
        return False
    return require_apart("--from", source, dataset, trusted=trusted)


def _named(dataset: Dataset) -> str:
    return f"{dataset.name} as it is now (digest {dataset.digest[:12]})"
