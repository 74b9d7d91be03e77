"""The OpenAPI 3.1 document of a service, made from its routes, its schemas and the catalogue of errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from services import __version__
from services.errors import DuetError
from services.protocol.native.routes import Route
from services.protocol.problems import MEDIA_TYPE
from services.protocol.v2.tensors import DTYPES

Schema = dict[str, Any]

JSON, PNG, TEXT, LINES, BINARY = (
    "application/json",
    "image/png",
    "text/plain",
    "application/x-ndjson",
    "application/octet-stream",
)
OBJECT: Schema = {"type": "object"}
TEXTS: Schema = {"type": "string"}
EVERYWHERE = (400, 413, 415, 429, 500, 503, 504)  # statuses of any route that takes a body


def document(routes: Mapping[str, Route[Any]], name: str, models: Sequence[str], *, drift: bool) -> Schema:
    """The document of a service.

    Args:
        routes: of the native protocol, by path.
        name: the service's name.
        models: the names of those that are served.
        drift: whether it has `/drift`.
    """
    schemas = [
        *((route.schema, "validation") for route in routes.values()),
        *((route.answer, "serialization") for route in routes.values()),
    ]
    found, definitions = models_json_schema(schemas, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Duet: {name}", "version": __version__},
        "paths": {
            **{
                path: {"post": _native(route, found[route.schema, "validation"], found[route.answer, "serialization"])}
                for path, route in routes.items()
            },
            **_v2(),
            **_catalogue(),
            **_probes(drift=drift),
        },
        "components": {
            "schemas": {**definitions["$defs"], **_V2_SCHEMAS},
            "responses": {f"Problem{status}": _problem(status) for status in _catalogue_of_errors()},
            "parameters": {**_PARAMETERS, "Model": _model(models)},
            "headers": _HEADERS,
        },
    }


def _native(route: Route[Any], takes: Schema, answers: Schema) -> Schema:
    fields = route.schema.model_fields
    content = {JSON: {"schema": answers}}
    if "format" in fields:
        content[PNG] = {"schema": {}}
    if "stream" in fields:
        content[LINES] = {"schema": {}}
    operation = _operation("native", route.handler.__doc__ or "", content, (*EVERYWHERE, 404, 422))
    operation["requestBody"] = {
        "required": True,
        "content": {JSON: {"schema": takes}, "multipart/form-data": {"schema": takes}},
    }
    operation["parameters"] = [_ref("parameters", parameter) for parameter in _PARAMETERS]
    return operation


def _v2() -> Schema:
    def about(summary: str, schema: Schema, *statuses: int, method: str = "get", model: bool = False) -> Schema:
        operation = _operation("V2", summary, {JSON: {"schema": schema}}, statuses)
        return {"parameters": [_ref("parameters", "Model")] if model else [], method: operation}

    infer = _operation(
        "V2",
        "Run a model on tensors.",
        {JSON: {"schema": _ref("schemas", "InferAnswer")}, BINARY: {"schema": {}}},
        (*EVERYWHERE, 404, 422),
    )
    infer["requestBody"] = {
        "required": True,
        "content": {JSON: {"schema": _ref("schemas", "InferRequest")}},
        "description": "Binary tensors may follow the JSON; `Inference-Header-Content-Length` then has its length.",
    }
    infer["parameters"] = [_ref("parameters", parameter) for parameter in _PARAMETERS]
    return {
        "/v2": about("The server's name and version.", OBJECT),
        "/v2/health/live": about("Whether the process runs.", OBJECT),
        "/v2/health/ready": about("Whether the models are verified and warm.", OBJECT, 503),
        "/v2/repository/index": about("The models of the service.", {"type": "array", "items": OBJECT}, method="post"),
        "/v2/models/{model}": about("Inputs and outputs of a model.", OBJECT, 404, 503, model=True),
        "/v2/models/{model}/ready": about("Whether a model answers.", OBJECT, 404, 503, model=True),
        "/v2/models/{model}/infer": {"parameters": [_ref("parameters", "Model")], "post": infer},
    }


def _catalogue() -> Schema:
    def page(summary: str, content: Schema, *statuses: int) -> Schema:
        return {"get": _operation("models", summary, content, statuses)}

    listed: Schema = {"type": "object", "properties": {"models": {"type": "array", "items": OBJECT}}}
    file = {"name": "file", "in": "path", "required": True, "schema": TEXTS, "description": "A name in the manifest."}
    return {
        "/models": page("The models that are served, and those that are damaged.", {JSON: {"schema": listed}}),
        "/models/{model}": {"parameters": [_ref("parameters", "Model")]}
        | page("Manifest, operations and files of a model.", {JSON: {"schema": OBJECT}}, 404, 503),
        "/models/{model}/files/{file}": {"parameters": [_ref("parameters", "Model"), file]}
        | page(
            "The model card, a picture or the manifest. The ETag is the SHA-256 of the file.",
            {media: {"schema": {}} for media in (JSON, PNG, "text/markdown")},
            404,
            503,
        ),
    }


def _probes(*, drift: bool) -> Schema:
    def probe(summary: str, media: str, *statuses: int) -> Schema:
        schema = OBJECT if media == JSON else TEXTS
        return {"get": _operation("operation", summary, {media: {"schema": schema}}, statuses)}

    report = {"/drift": probe("Whether images still resemble the calibration images.", JSON, 503)}
    return {
        "/startupz": probe("200 when loading has ended, with models that verify or not.", TEXT, 503),
        "/livez": probe("200 while the process runs.", TEXT),
        "/healthz": probe("The same as /livez.", TEXT),
        "/readyz": probe("200 when the models are verified and warm.", JSON, 503),
        "/metrics": probe("Metrics for Prometheus.", TEXT),
        **(report if drift else {}),
    }


def _operation(tag: str, summary: str, content: Schema, statuses: Iterable[int]) -> Schema:
    problems = {str(status): _ref("responses", f"Problem{status}") for status in sorted(statuses)}
    headers = {name: _ref("headers", name) for name in _HEADERS}
    answered = {"200": {"description": "The answer.", "content": content, "headers": headers}}
    return {"tags": [tag], "summary": summary.strip().partition("\n")[0], "responses": answered | problems}


def _catalogue_of_errors() -> dict[int, list[type[DuetError]]]:
    """The classes of the catalogue by status."""
    by_status: dict[int, list[type[DuetError]]] = {}
    errors: list[type[DuetError]] = [DuetError, *DuetError.__subclasses__()]
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return by_status


def _problem(status: int) -> Schema:
    errors = {error.slug: error.title for error in _catalogue_of_errors()[status]}
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "error"],
        "properties": {
            "type": {"enum": [f"urn:duet:problem:{slug}" for slug in errors]},
            "title": {"enum": list(errors.values())},
            "status": {"const": status},
            "detail": {"type": "string", "description": "The value that came, and what is allowed."},
            "error": {"type": "string", "description": "The same as detail, for V2 clients."},
            "field": {"type": "string", "description": "The field that caused the error."},
        },
    }
    return {"description": "; ".join(errors.values()), "content": {MEDIA_TYPE: {"schema": schema}}}


def _model(names: Sequence[str]) -> Schema:
    schema: Schema = {"enum": list(names)} if names else {"type": "string", "minLength": 1}
    return {"name": "model", "in": "path", "required": True, "schema": schema, "description": "NAME of a model."}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


_PARAMETERS: Schema = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The answer and the log repeat it, if it has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
    },
    "Timeout": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Milliseconds until the deadline.",
    },
    "Purpose": {
        "name": "X-Request-Purpose",
        "in": "header",
        "schema": {"type": "string"},
        "description": "trial: leave the request out of drift and of the counts of predictions and samples.",
    },
    "CacheControl": {
        "name": "Cache-Control",
        "in": "header",
        "schema": {"type": "string"},
        "description": "no-cache: compute the answer again, and store it; no-store: and store nothing.",
    },
}
_HEADERS: Schema = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Yours, or a new one."},
}
_TENSOR: Schema = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": list(DTYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 8},
        "data": {"type": "array", "description": "Flat or nested, in row-major order."},
        "parameters": {"type": "object"},
    },
}
_V2_SCHEMAS: Schema = {
    "InferRequest": {
        "type": "object",
        "description": "A generator needs no inputs: parameters `seed` and `count` are enough.",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": _TENSOR, "maxItems": 64},
            "outputs": {
                "type": "array",
                "maxItems": 64,
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "parameters": {
                            "type": "object",
                            "properties": {
                                "binary_data": {"type": "boolean"},
                                "classification": {"type": "integer", "minimum": 0},
                            },
                            "additionalProperties": False,
                        },
                    },
                },
            },
        },
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
}
