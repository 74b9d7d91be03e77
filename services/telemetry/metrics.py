"""Every metric of Duet, once: prefix `duet_`, seconds and bytes, bounded labels.

A pod has one worker process, so values live in the memory of this process. BentoML would write them to files under
BENTOML_HOME, which all servers of that home share and each start deletes; the first two statements prevent that.
"""

from __future__ import annotations

import os
from functools import cache

os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import REGISTRY, Gauge

from services.telemetry.counter import Counter
from services.telemetry.histogram import Histogram
from services.telemetry.page import page

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUEST_SECONDS = Histogram(
    "duet_request_duration_seconds", "Time to answer a request.", ["route", "status"], buckets=FAST
)
IN_FLIGHT = Gauge("duet_requests_in_flight", "Requests in progress.", ["route"])
CONNECTIONS_ENDED = Counter(
    "duet_connections_ended_total",
    "Connections that the service ended: silent (no request came), unsent (the rest of a body did not come), unread "
    "(an answer was not read in time), unread-bytes (too many answers were not read), idle.",
    ["reason"],
)
BODIES_BYTES = Gauge("duet_bodies_bytes", "Bytes of request bodies in memory.")
STAGE_SECONDS = Histogram(
    "duet_stage_duration_seconds",
    "Time of one stage of a request: parse, decode, cache, queue, compute, encode.",
    ["route", "stage"],
    buckets=FAST,
)
REJECTIONS = Counter("duet_rejections_total", "Requests answered with an error, by problem type.", ["route", "reason"])
QUEUE_SECONDS = Histogram(
    "duet_queue_duration_seconds",
    "Time that a request waited for a model, by outcome: served, dropped (nobody waited for it any more), refused (the "
    "time that it would have waited, as estimated).",
    ["model", "outcome"],
    buckets=FAST,
)
QUEUE_ITEMS = Gauge("duet_queue_items", "Items waiting for a model.", ["model", "version", "operation"])
BATCH_ITEMS = Histogram("duet_batch_items", "Items in one batch.", ["model", "version", "operation"], buckets=POWERS)
ITEM_SECONDS = Gauge(
    "duet_item_seconds", "Compute time of one more item, a running mean.", ["model", "version", "operation"]
)
LOOP_LAG = Gauge("duet_event_loop_lag_seconds", "Delay of the event loop.")
ABANDONED = Counter(
    "duet_abandoned_items_total", "Items dropped before compute: caller left or deadline passed.", ["model", "reason"]
)
WASTED = Counter(
    "duet_wasted_items_total",
    "Items computed in vain: the caller left or the deadline passed during compute.",
    ["model", "reason"],
)
CACHE_REQUESTS = Counter("duet_cache_requests_total", "Items looked up in the cache.", ["tier", "result"])
CACHE_EVICTIONS = Counter("duet_cache_evictions_total", "Items that the memory tier evicted.")
REDIS_SECONDS = Histogram("duet_cache_redis_duration_seconds", "Time of a Redis command.", ["command"], buckets=FAST)
REDIS_ROUND_TRIP = Gauge(
    "duet_cache_redis_round_trip_seconds", "Time to ask Redis for one key: the shortest of five probes."
)
REDIS_BREAKER = Gauge(
    "duet_cache_redis_breaker",
    "State of the breaker for reads and writes: 0 Redis is used, 0.5 it is probed, 1 it is not used.",
    ["side"],
)
REDIS_FROM_ITEMS = Gauge(
    "duet_cache_redis_from_items",
    "Items in the smallest request that asks Redis; 0: no request asks.",
    ["model", "version", "operation"],
)
CACHE_BYTES = Gauge("duet_cache_memory_bytes", "Bytes in the memory tier.")
BUILD_INFO = Gauge(
    "duet_build_info", "1; the versions of Duet, Python and ONNX Runtime.", ["version", "python", "onnxruntime"]
)
MODEL_INFO = Gauge("duet_model_info", "1 for every model that is served.", ["model", "version", "digest", "task"])
READY = Gauge("duet_ready", "1 while every model is verified and warm.")
PREDICTIONS = Counter(
    "duet_predictions_total", "Images classified, by the most probable class.", ["model", "version", "label"]
)
P_VALUES = Histogram(
    "duet_anomaly_p_value",
    "Conformal p-values in answers.",
    ["model", "version"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
)
DRIFT_EVIDENCE = Gauge(
    "duet_drift_evidence",
    "log10 of the evidence that scored images differ from the calibration images; an alarm is raised at 8, and the "
    "evidence then begins afresh.",
    ["model", "version", "kind"],
)
DRIFT_ALARM = Gauge("duet_drift_alarm", "1 while a drift alarm is active.", ["model", "version"])
DRIFT_REPEATS = Gauge(
    "duet_drift_repeats",
    "Share of scored images that their client had sent before, in the last 128 slices; they do not count for drift.",
    ["model", "version"],
)
SAMPLES = Counter("duet_generated_samples_total", "Images generated.", ["model", "version"])


class Count:
    """Of requests: a plain number, because a gauge's lock costs more than counting."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


BEGUN = Count()  # requests of all routes that have begun, ended ones too; the batchers read it


@cache
def in_flight(route: str) -> Count:
    """The count behind `IN_FLIGHT` of one route."""
    counted = Count()
    IN_FLIGHT.labels(route).set_function(lambda: counted.count)
    return counted


def exposition(accept: bytes = b"") -> tuple[bytes, str]:
    """The text for Prometheus and its content type.

    Args:
        accept: the header `Accept`. A reader of OpenMetrics gets that format, which has exemplars.
    """
    openmetrics = b"application/openmetrics-text" in accept
    return page(REGISTRY.collect(), openmetrics=openmetrics), OPENMETRICS if openmetrics else TEXT
