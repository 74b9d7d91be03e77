"""What a service serves, as it says itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

SECONDS = 30.0  # for an answer to one question before the load begins


class NotAnswered(Exception):
    """The service did not say what it serves; the message has address and reason."""


@dataclass(frozen=True)
class Model:
    """A served model.

    Attributes:
        shape: channels, height and width of its images.
        labels: names of its classes; none where it has no classes.
    """

    name: str
    version: str
    task: str
    operations: tuple[str, ...]
    dataset: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]


def ask(host: str, path: str, document: dict[str, Any] | None = None) -> Any:
    """The JSON answer of a GET, or of a POST with a document.

    Raises:
        NotAnswered: there is none.
    """
    body = None if document is None else json.dumps(document).encode()
    url = host.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise NotAnswered(f"--host {host!r}: it must begin with http:// or https://")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
        raise NotAnswered(f"{url}: status {error.code}: {said}") from None
    except (OSError, ValueError) as error:
        raise NotAnswered(f"{url}: {error}; is --host the address of a running service of Duet?") from None


def served(host: str) -> list[Model]:
    """The models that are served there.

    Raises:
        NotAnswered: the service is not there, or serves no model.
    """
    listed = ask(host, "/models")
    try:
        names = [found["name"] for found in listed["models"] if found["state"] == "served"]
        models = [_model(ask(host, f"/models/{name}")) for name in dict.fromkeys(names)]
    except (KeyError, TypeError, AttributeError) as error:
        raise NotAnswered(f"{host}: /models has no {error}; the address is not one of Duet's services") from None
    if not models:
        raise NotAnswered(f"{host}: it serves no model; /readyz says why")
    return models


def _model(found: dict[str, Any]) -> Model:
    manifest = found["manifest"]
    image = manifest["image"]
    return Model(
        name=found["name"],
        version=found["version"],
        task=found["task"],
        operations=tuple(found["operations"]),
        dataset=found["dataset"],
        shape=(image["channels"], image["height"], image["width"]),
        labels=tuple(manifest["class_names"] or ()),
    )
