"""Whether a bundle fits a data set."""

from __future__ import annotations

from services.inference.bundle import Bundle
from training.data import Dataset


class EvaluationError(ValueError):
    """A bundle does not fit a data set; the message names both and the remedy."""


def require_same(name: str, bundle: Bundle, dataset: Dataset) -> None:
    """Refuse data of another image shape or of other classes than the bundle's; `name` is for the message.

    Raises:
        EvaluationError: with what each has.
    """
    manifest = bundle.manifest
    if dataset.image_shape != manifest.image.shape:
        raise EvaluationError(
            f"{name} takes images of shape {manifest.image.shape}, but {dataset.name} has {dataset.image_shape}; "
            f"give data like {manifest.dataset.name}"
        )
    if dataset.class_names != manifest.class_names:
        raise EvaluationError(
            f"{name} has the classes {_listed(manifest.class_names)}, but {dataset.name} has "
            f"{_listed(dataset.class_names)}; give data like {manifest.dataset.name}"
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
