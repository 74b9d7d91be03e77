"""Every metric of Duet, once: prefix `duet_`, seconds and bytes, bounded labels.

One worker process a pod, so values live in this process's memory. BentoML would send them through files under
BENTOML_HOME that every server of the same home shares and each start wipes, hence the first two statements.
"""

from __future__ import annotations

import os
from functools import cache

os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, generate_latest

from services.telemetry.histogram import Histogram, Series

FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUEST_SECONDS = Histogram(
    "duet_request_duration_seconds", "Time to answer a request.", ["route", "status"], buckets=FAST
)
IN_FLIGHT = Gauge("duet_requests_in_flight", "Requests being answered.", ["route"])
STAGE_SECONDS = Histogram(
    "duet_stage_duration_seconds",
    "Time of one stage of a request: parse, decode, cache, queue, compute, encode.",
    ["route", "stage"],
    buckets=FAST,
)
REJECTIONS = Counter("duet_rejections_total", "Requests answered with an error, by problem type.", ["route", "reason"])
QUEUE_ITEMS = Gauge("duet_queue_items", "Items waiting for a model.", ["model", "operation"])
BATCH_ITEMS = Histogram("duet_batch_items", "Items computed by one call.", ["model", "operation"], buckets=POWERS)
ITEM_SECONDS = Gauge("duet_item_seconds", "Time that one more item takes, a running mean.", ["model", "operation"])
LOOP_LAG = Gauge("duet_event_loop_lag_seconds", "How late the event loop runs.")
ABANDONED = Counter(
    "duet_abandoned_items_total", "Items dropped before compute: caller left or deadline passed.", ["model", "reason"]
)
WASTED = Counter(
    "duet_wasted_items_total",
    "Items computed for nobody: the caller left or the deadline passed meanwhile.",
    ["model", "reason"],
)
CACHE_REQUESTS = Counter("duet_cache_requests_total", "Items looked up in the cache.", ["tier", "result"])
CACHE_EVICTIONS = Counter("duet_cache_evictions_total", "Items that the memory tier dropped for want of room.")
REDIS_SECONDS = Histogram("duet_cache_redis_duration_seconds", "Time of a command of Redis.", ["command"], buckets=FAST)
REDIS_ROUND_TRIP = Gauge(
    "duet_cache_redis_round_trip_seconds", "Time of asking Redis for one key: the least of five probes."
)
REDIS_BREAKER = Gauge(
    "duet_cache_redis_breaker",
    "Redis is used (0), left alone (1) or being tried (0.5), to read and to write.",
    ["side"],
)
REDIS_FROM_ITEMS = Gauge(
    "duet_cache_redis_from_items",
    "Items of the smallest request that asks Redis; 0: none does.",
    ["model", "operation"],
)
CACHE_BYTES = Gauge("duet_cache_memory_bytes", "Bytes held by the memory tier.")
MODEL_INFO = Gauge("duet_model_info", "1 for every model that is served.", ["model", "version", "digest", "task"])
READY = Gauge("duet_ready", "1 while every model is verified and warm.")
PREDICTIONS = Counter("duet_predictions_total", "Images classified, by the most probable class.", ["model", "label"])
P_VALUES = Histogram(
    "duet_anomaly_p_value",
    "Conformal p-values answered.",
    ["model"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
)
DRIFT_EVIDENCE = Gauge(
    "duet_drift_evidence",
    "Evidence that the images scored are no longer like the calibration images, log10; the alarm is at 8.",
    ["model", "kind"],
)
DRIFT_ALARM = Gauge(
    "duet_drift_alarm", "1 after an alarm about drift, until another version is loaded or the process ends.", ["model"]
)
SAMPLES = Counter("duet_generated_samples_total", "Images generated.", ["model"])


@cache
def predictions(model: str, label: str) -> Counter:
    """`PREDICTIONS` of one class; looking labels up anew costs more than counting."""
    return PREDICTIONS.labels(model, label)


@cache
def p_values(model: str) -> Series:
    """`P_VALUES` of one model."""
    return P_VALUES.labels(model)


@cache
def cache_requests(tier: str, result: str) -> Counter:
    """`CACHE_REQUESTS` of one tier and result."""
    return CACHE_REQUESTS.labels(tier, result)


@cache
def redis_seconds(command: str) -> Series:
    """`REDIS_SECONDS` of one command."""
    return REDIS_SECONDS.labels(command)


class InFlight:
    """Requests of one route being answered: a plain number, for a gauge's lock costs more than counting."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@cache
def in_flight(route: str) -> InFlight:
    """The count behind `IN_FLIGHT` of one route."""
    counted = InFlight()
    IN_FLIGHT.labels(route).set_function(lambda: counted.count)
    return counted


def exposition() -> tuple[bytes, str]:
    """The text for Prometheus and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
