"""Every setting of the serving side, once, with type, default, unit and help.

The environment sets `DUET_<NAME>`, and for traces `OTEL_<NAME>`.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # of RFC 9110, 5.6.2
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER = "opentelemetry-exporter-otlp-proto-http"


class Settings(BaseSettings):
    # An error that quoted its input would quote a password.
    model_config = SettingsConfigDict(env_prefix="DUET_", frozen=True, hide_input_in_errors=True)

    models: str = Field(
        default="",
        description="Models to serve: NAME or NAME:VERSION, separated by commas; empty: the newest version of every "
        "name in the store.",
    )
    bundles: str = Field(
        default="",
        description="Folder of bundles that is served in place of the store, and never written: it holds one bundle, "
        "or NAME/ or NAME/VERSION/ below it do. Of several versions of a name, that of the last folder is the newest. "
        "Empty: the store.",
    )
    bundle_name: str = Field(
        default="",
        description="Name under which the only model of DUET_BUNDLES is served, such as that of its InferenceService; "
        "empty: its own.",
    )
    trusted_keys: str = Field(
        default="",
        description="Public keys (PEM, elliptic curve), as files or folders separated by commas: a bundle that none of "
        "them signed is not served. Empty: signatures are not looked at.",
    )
    default_models: str = Field(
        default="",
        description="NAME or NAME:VERSION, separated by commas: a request that names no model is answered by the first "
        "of them that can, and a name without a version means the version given here, else the newest. Empty: a "
        "request without a model is answered by the only one that can; with several, it is refused with 422. Where "
        "only reference models are served, those of MNIST are the default.",
    )
    readiness: Literal["all", "default", "any"] = Field(
        default="all",
        description="When /readyz answers 200. all: every selected model is verified and warm; default: each task has "
        "its default model, or any model if none is its default; any: a model is served. A model that is not damaged "
        "answers in any case.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr(""),
        description="URL of the Redis for the shared cache tier, such as redis://[user:password@]host:port/db; "
        "empty: memory only.",
    )
    redis_admission: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="When a request asks Redis. auto: when computing its items takes longer than a round trip, both "
        "measured.",
    )
    redis_timeout_ms: int = Field(
        default=50, ge=1, description="Milliseconds that one Redis command may take, connecting and waiting included."
    )
    cache_memory_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        description="Bytes of answers in the memory tier of a process, at most; 0: no memory tier.",
    )
    cache_ttl_seconds: int = Field(default=3600, ge=1, description="Seconds that Redis keeps an answer (±10 % jitter).")
    cache_value_bytes: int = Field(
        default=2**20, ge=1, description="Bytes of the largest answer, of one item, that is cached."
    )
    body_bytes: int = Field(default=16 * 2**20, ge=1, description="Bytes of the largest request body.")
    bodies_bytes: int = Field(
        default=128 * 2**20,
        ge=1,
        description="Bytes of all request bodies in memory at once; what exceeds them is refused with 429. At least "
        "DUET_BODY_BYTES.",
    )
    head_bytes: int = Field(default=2**16, ge=1024, description="Bytes of the request line and the headers, at most.")
    head_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Seconds in which the headers of a request must arrive, after the connection was opened or the "
        "first of them came.",
    )
    unread_bytes: int = Field(
        default=8 * 2**20,
        ge=0,
        description="Bytes of answers that clients have not read within a tenth of a second, over all connections; "
        "beyond it those that have waited longest are disconnected.",
    )
    keep_alive_seconds: float = Field(
        default=620.0,
        gt=0,
        description="Seconds that an idle connection stays open: longer than those of the proxies before it, which "
        "else answer 502 now and then.",
    )
    connections: int = Field(default=4096, ge=1, description="Open connections of the process, at most.")
    peer_connections: int = Field(
        default=0,
        ge=0,
        description="Open connections of one client address, at most; 0: as many as of all. A proxy is one address.",
    )
    image_pixels: int = Field(
        default=16_000_000,
        ge=1,
        description="Pixels in all image files of a request, at most, checked before decoding; and in all images "
        "that an answer draws.",
    )
    request_items: int = Field(default=256, ge=1, description="Images or samples in one request, at most.")
    stream_items: int = Field(default=2**16, ge=1, description="Samples in one streamed answer, at most.")
    request_timeout_ms: int = Field(
        default=10_000,
        ge=1,
        description="Milliseconds until the deadline of a request; `X-Request-Timeout-Ms` may shorten it.",
    )
    queue_items: int = Field(
        default=1024, ge=1, description="Items that may wait for one operation of a model; more are refused with 429."
    )
    batch_items: int = Field(default=64, ge=1, description="Items in one batch of a model, at most.")
    batch_bytes: int = Field(default=16 * 2**20, ge=1, description="Bytes of inputs in one batch of a model, at most.")
    threads: int = Field(
        default=0,
        ge=0,
        description="Threads that compute a batch of a model; 0: the CPU limit of the container, without one the CPU "
        "request of the pod, and outside Kubernetes the cores. In a pod without a limit, set it to the request.",
    )
    fast_lane: bool = Field(
        default=True,
        description="true: requests bypass BentoML's layers (timer, spans), which is several times faster; false: "
        "they pass them.",
    )
    direct: bool = Field(
        default=True,
        description="true: a request for a model whose whole body has arrived is answered without ASGI, which is "
        "faster; false: through ASGI, with the same answer. Only with DUET_FAST_LANE.",
    )
    drain_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Seconds in which requests are still accepted after SIGTERM, while /readyz answers 503.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How log lines are written. json: one object a line, with time, level, logger, process, message, "
        "and where there are any request_id, trace_id and exception; lines of BentoML and other libraries too.",
    )
    log_lines: int = Field(
        default=20,
        ge=0,
        description="Log lines that a process writes a second, on the average; five seconds' worth may come at once. "
        "The next line says how many were left out. 0: no bound.",
    )
    drift_tolerated: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the images that may be strange without an alarm of drift, whatever they look like.",
    )
    drift_slice_seconds: float = Field(
        default=10.0,
        ge=0.01,
        le=86400,
        allow_inf_nan=False,
        description="Seconds in which the images of a client count as one vote in the test of drift.",
    )
    client_header: str = Field(
        default="",
        description="Name of a request header that names the client, for the test of drift; `GET /drift` shows its "
        "values, so it must hold no secret. Empty: all requests are of one client.",
    )

    @field_validator("client_header")
    @classmethod
    def _is_a_header(cls, name: str) -> str:
        if name and not TOKEN.fullmatch(name):
            raise ValueError("must be empty or the name of a header")
        if name.lower() in SECRET_HEADERS:
            raise ValueError("must not be a header that holds a secret")
        return name.lower()

    @field_validator("redis_url")
    @classmethod
    def _has_a_scheme(cls, url: SecretStr) -> SecretStr:
        if (text := url.get_secret_value()) and text.partition("://")[0] not in REDIS_SCHEMES:
            raise ValueError(f"must be empty or begin with one of {', '.join(f'{name}://' for name in REDIS_SCHEMES)}")
        return url


class TraceSettings(BaseSettings):
    """Where traces go and how many: the standard variables, which operators of a platform set for every program."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", frozen=True, hide_input_in_errors=True, env_ignore_empty=True)

    exporter_otlp_endpoint: str = Field(
        default="",
        description="URL of a collector that takes OTLP over HTTP, such as http://collector:4318; /v1/traces is added. "
        "Empty, like the next one: no traces.",
    )
    exporter_otlp_traces_endpoint: str = Field(
        default="", description="The same for traces alone, with its path; it goes before the other."
    )
    exporter_otlp_protocol: Literal["http/protobuf"] = Field(
        default="http/protobuf", description="The only one that Duet sends; grpc, at port 4317, is refused."
    )
    exporter_otlp_traces_protocol: Literal["http/protobuf"] = Field(
        default="http/protobuf", description="The same for traces alone."
    )
    traces_exporter: Literal["otlp", "none"] = Field(default="otlp", description="none: no traces in any case.")
    traces_sampler: Literal[
        "parentbased_traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "traceidratio",
        "always_on",
        "always_off",
    ] = Field(
        default="parentbased_traceidratio",
        description="Which requests are traced. parentbased_...: one whose caller has decided (`traceparent`) as its "
        "caller wants; others, and without parentbased_ all: a share (traceidratio), each one, or none.",
    )
    traces_sampler_arg: float = Field(
        default=0.01,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The share of traceidratio. The standard's is 1, at which a fast model spends more time on traces "
        "than on answers.",
    )

    bsp_schedule_delay: int = Field(
        default=5000,
        ge=1,
        description="Milliseconds between two requests to the collector, unless many spans wait.",
    )

    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/]", url):
            raise ValueError("must be empty or begin with http:// or https:// and the name of a host")
        return url

    @property
    def endpoint(self) -> str:
        """Where traces are sent to; empty: nowhere."""
        if self.traces_exporter == "none":
            return ""
        if self.exporter_otlp_traces_endpoint or not self.exporter_otlp_endpoint:
            return self.exporter_otlp_traces_endpoint
        return self.exporter_otlp_endpoint.rstrip("/") + "/v1/traces"

    @property
    def share(self) -> float:
        """Of the requests whose caller has not decided, or does not decide."""
        _, _, kind = self.traces_sampler.rpartition("_")
        return {"on": 1.0, "off": 0.0}.get(kind, self.traces_sampler_arg)


class SettingsError(Exception):
    """Variables of the environment have values that are not allowed; one sentence a variable."""


S = TypeVar("S", bound=BaseSettings)


def read() -> Settings:
    """The settings that the environment gives.

    Raises:
        SettingsError: a value is not allowed; the message names the variable, the value and what is allowed.
    """
    return _read(Settings)


def read_traces() -> TraceSettings | None:
    """Where traces go; None: nowhere.

    Raises:
        SettingsError: as `read`; or the package that sends them is not installed.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None  # whatever the other variables are: they are for other programs
    traces = _read(TraceSettings)
    try:
        version(EXPORTER)
    except PackageNotFoundError:
        name = next(name for name in reversed(ENDPOINTS) if os.environ.get(name))
        message = f"{name} is set, but the package {EXPORTER}, which sends traces, is not installed"
        raise SettingsError(f"{message}; install it, or unset the variable") from None
    return traces


def _read(kind: type[S]) -> S:
    try:
        return kind()
    except ValidationError as error:
        sentences = [_refusal(kind, str(part["loc"][0]), part) for part in error.errors()]
    raise SettingsError(". ".join(sentences))


def _refusal(kind: type[BaseSettings], name: str, problem: ErrorDetails) -> str:
    field, variable = kind.model_fields[name], f"{kind.model_config['env_prefix']}{name.upper()}"
    if field.annotation is SecretStr:
        return f"{variable}: its value (not shown, for it may hold a password) {problem['ctx']['error']}"
    if field.annotation is str:
        return f"{variable}: {problem['input']!r} {problem['ctx']['error']}"
    return f"{variable}: {problem['input']!r} is not {_allowed(field)}; the default is {field.default}"


def _allowed(field: FieldInfo) -> str:
    """What a field takes, in words."""
    if field.annotation is bool:
        return "true or false"
    if field.annotation in (int, float):
        bounds = [
            f"{words} {getattr(bound, sign)}"
            for sign, words in (("ge", "of at least"), ("gt", "above"), ("le", "and at most"))
            for bound in field.metadata
            if hasattr(bound, sign)
        ]
        return f"a {'whole ' if field.annotation is int else ''}number {' '.join(bounds)}"
    return f"one of {', '.join(get_args(field.annotation))}"
