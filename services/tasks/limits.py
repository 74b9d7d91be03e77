"""How much one request may ask for, and references to classes; the fields are named as the protocol calls them."""

from __future__ import annotations

from collections.abc import Sequence

from services.errors import InvalidInput, TooLarge
from services.inference.model import Model
from services.settings import Settings


def check_count(count: int, field: str, limit: int) -> None:
    """Refuse more items than a request may have.

    Raises:
        TooLarge: naming the field and the limit.
    """
    if count > limit:
        raise TooLarge(f"{field}: {count} items; at most {limit} are allowed in one request", field=field)


def check_drawn(count: int, field: str, model: Model, settings: Settings) -> None:
    """Refuse more images, or more pixels in them, than an answer may have.

    Raises:
        TooLarge: naming the field and the limit.
    """
    check_count(count, field, settings.request_items)
    _, height, width = model.bundle.manifest.image.shape
    if count * height * width > settings.image_pixels:
        size, limit = f"{width} x {height}", f"{settings.image_pixels // (height * width)} such images"
        pixels = f"{settings.image_pixels} pixels"
        message = f"{field}: {count} images of {size}; at most {limit} ({pixels}) are allowed in one answer"
        raise TooLarge(message, field=field)


def class_index(label: str | int, class_names: Sequence[str], field: str = "class") -> int:
    """The index of a class given by name, or by index.

    Raises:
        InvalidInput: no such class; the message lists them.
    """
    if str(label) in class_names:
        return class_names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(class_names):
        return label
    raise InvalidInput(f"{field}: {str(label)[:40]!r} is not one of {', '.join(class_names)}", field=field)
