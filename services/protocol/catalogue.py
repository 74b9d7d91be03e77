"""`GET /models`: what is served, with manifest, model card and pictures; graphs are not handed out."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from services.dataplane import DataPlane
from services.errors import UnknownModel, UnknownRoute
from services.inference.bundle import MANIFEST
from services.inference.model import Model
from services.protocol.raw_response import RawResponse
from services.served import Served

JSON = b"application/json"
TYPES = {".md": b"text/markdown; charset=utf-8", ".png": b"image/png", ".json": JSON}


def template(path: str) -> str:
    """The route template of a path below `/models`, as a metric label."""
    parts = path.split("/")[2:]
    if len(parts) == 1 and parts[0]:
        return "/models/{model}"
    return "/models/{model}/files/{file}" if len(parts) > 2 and parts[1] == "files" else "/models"


async def models_page(plane: DataPlane, path: str, headers: dict[bytes, bytes]) -> RawResponse:
    """The answer to a path that begins with `/models`.

    Raises:
        UnknownModel, UnknownRoute: no such model or file.
        NotReady: models are not loaded, or this one did not verify.
    """
    match path.split("/")[2:]:
        case [] | [""]:
            return _json({"models": _listed(plane)})
        case [name]:
            return _json(_described(_served(plane, name)))
        case [name, "files", *rest]:
            return await _file(_served(plane, name), "/".join(rest), headers)
    raise UnknownRoute(f"{path[:100]}: no such route; send /models, /models/NAME or /models/NAME/files/FILE")


def _listed(plane: DataPlane) -> list[dict[str, Any]]:
    found = [_named(served) | {"state": "served"} for served in plane.served]
    return found + [
        {"name": entry.name, "version": entry.version, "task": entry.task, "state": "damaged", "reason": reason}
        for entry in plane.entries
        if (reason := plane.damaged.get(entry.tag))
    ]


def _served(plane: DataPlane, name: str) -> Served[Model]:
    for served in plane.served:
        if name == served.entry.tag or (name == served.entry.name and plane.defaults.means(served.entry)):
            return served
    plane.check_damage(name)
    known = ", ".join(served.entry.tag for served in plane.served) or "none"
    raise UnknownModel(f"model {name[:80]!r} is not served here; served are {known}", field="model")


def _named(served: Served[Model]) -> dict[str, Any]:
    manifest = served.model.bundle.manifest
    return {
        "name": served.entry.name,
        "version": served.entry.version,
        "digest": served.model.bundle.digest,
        "task": manifest.task,
        "network": manifest.network,
        "dataset": manifest.dataset.name,
        "operations": list(served.batchers),
    }


def _described(served: Served[Model]) -> dict[str, Any]:
    manifest = served.model.bundle.manifest
    shown = {name: file.sha256 for name, file in manifest.files.items() if _type(name) is not None}
    return _named(served) | {"manifest": manifest.model_dump(mode="json"), "files": shown}


def _type(name: str) -> bytes | None:
    """The media type of a file that may be shown; None for graphs."""
    return TYPES.get("." + name.rpartition(".")[2])


async def _file(served: Served[Model], name: str, headers: dict[bytes, bytes]) -> RawResponse:
    """A file that the manifest names, so that no other path can be read."""
    bundle = served.model.bundle
    known = {file: found.sha256 for file, found in bundle.manifest.files.items() if _type(file) is not None}
    known[MANIFEST] = bundle.digest
    if name not in known:
        raise UnknownRoute(f"file {name[:80]!r} is not one of {', '.join(known)}")
    tag = f'"{known[name]}"'.encode()
    answered = [(b"content-type", _type(name) or JSON), (b"etag", tag), (b"cache-control", b"no-cache")]
    if tag in headers.get(b"if-none-match", b""):
        return RawResponse(304, answered[1:], b"")
    return RawResponse(200, answered, await asyncio.to_thread((bundle.path / name).read_bytes))


def _json(content: object) -> RawResponse:
    return RawResponse(200, [(b"content-type", JSON)], orjson.dumps(content))
