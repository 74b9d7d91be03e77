"""The four dashboards: the service, quality and drift, the cache, and a rollout by digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deploy.monitoring.alerts import SERVICE, Alert, groups
from deploy.monitoring.objectives import Objective
from deploy.monitoring.panels import OF, REPLICAS, Panel, Query, dashboard

RATE = "$__rate_interval"


def boards(objectives: Sequence[Objective]) -> dict[str, dict[str, Any]]:
    """Every dashboard by its name.

    Args:
        objectives: the first one counts every request to a model.
    """
    parts = [part for group in groups(objectives[0]).values() for part in group]
    limits = {part.name: part.limit for part in parts if isinstance(part, Alert)}
    return {
        "service": dashboard("service", "service", _service(objectives, limits)),
        "quality": dashboard("quality", "quality and drift", _quality(limits)),
        "cache": dashboard("cache", "cache and Redis", _cache(limits)),
        "rollout": dashboard("rollout", "rollout by digest", _rollout(limits)),
    }


def _rate(metric: str, by: str, *labels: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{','.join([OF, *labels])}}}[{RATE}]))"


def _quantile(share: float, metric: str, by: str, *labels: str) -> str:
    return f"histogram_quantile({share:g}, {_rate(f'{metric}_bucket', f'{by}, le' if by else 'le', *labels)})"


def _service(objectives: Sequence[Objective], limits: dict[str, float]) -> list[Panel]:
    panels = []
    for objective in objectives:
        of = f'{{{OF},sloth_id="{objective.id}"}}'
        left = Query(f"slo:period_error_budget_remaining:ratio{of}", "{{job}}")
        panels.append(
            Panel(
                f"Budget left of {objective.name}",
                (left,),
                "percentunit",
                "stat",
                limits=(0,),
                below=True,
                alert=objective.alert,
                width=6,
            )
        )
    for objective in objectives:
        of = f'{{{OF},sloth_id="{objective.id}"}}'
        share = Query(f"slo:sli_error:ratio_rate5m{of}", "{{job}}")
        title = f"{objective.name}: share of bad requests"
        panels.append(Panel(title, (share,), "percentunit", limits=(objective.budget,), alert=objective.alert, width=6))
    for objective in objectives:
        if objective.seconds is None:
            continue
        routes = (f'route=~"{objective.routes}"', 'status=~"2.."')
        lines = tuple(
            Query(_quantile(share, "duet_request_duration_seconds", "job", *routes), f"{{{{job}}}} {100 * share:g} %")
            for share in (0.5, objective.percent / 100)
        )
        title = f"{objective.name}: {objective.percent:g} % take at most {objective.seconds:g} s"
        panels.append(Panel(title, lines, "s", limits=(objective.seconds,), alert=objective.alert, exemplars=True))
    return [
        *panels,
        Panel(
            "Requests by route", (Query(_rate("duet_request_duration_seconds_count", "route"), "{{route}}"),), "reqps"
        ),
        Panel(
            "Answers by status", (Query(_rate("duet_request_duration_seconds_count", "status"), "{{status}}"),), "reqps"
        ),
        Panel(
            "Errors by problem",
            (Query(_rate("duet_rejections_total", "reason"), "{{reason}}"),),
            "reqps",
            alert="DuetRefusals",
        ),
        Panel(
            "Wait for a model: 99 %",
            (Query(_quantile(0.99, "duet_queue_duration_seconds", "model"), "{{model}}"),),
            "s",
            limits=(limits["DuetQueueWait"],),
            alert="DuetQueueWait",
        ),
        Panel(
            "Waits by outcome", (Query(_rate("duet_queue_duration_seconds_count", "outcome"), "{{outcome}}"),), "reqps"
        ),
        Panel("Items that wait", (Query(f"sum by (model) (duet_queue_items{{{OF}}})", "{{model}}"),), "short"),
        Panel(
            "Time by stage: 99 %", (Query(_quantile(0.99, "duet_stage_duration_seconds", "stage"), "{{stage}}"),), "s"
        ),
        Panel(
            "Items in a batch: mean",
            (
                Query(
                    f"{_rate('duet_batch_items_sum', 'model')} / {_rate('duet_batch_items_count', 'model')}",
                    "{{model}}",
                ),
            ),
            "short",
        ),
        Panel(
            "Requests in flight", (Query(f"sum by (route) (duet_requests_in_flight{{{OF}}})", "{{route}}"),), "short"
        ),
        Panel("Bytes of bodies in flight", (Query(f"duet_bodies_bytes{{{OF}}}", "{{instance}}"),), "bytes"),
        Panel(
            "Event loop: delay",
            (Query(f"avg_over_time(duet_event_loop_lag_seconds{{{OF}}}[{RATE}])", "{{instance}}"),),
            "s",
            limits=(limits["DuetEventLoopLag"],),
            alert="DuetEventLoopLag",
        ),
        Panel("CPU", (Query(f"rate(process_cpu_seconds_total{{{OF}}}[{RATE}])", "{{instance}}"),), "short"),
        Panel("Memory", (Query(f"process_resident_memory_bytes{{{OF}}}", "{{instance}}"),), "bytes"),
        Panel("Open files", (Query(f"process_open_fds{{{OF}}}", "{{instance}}"),), "short"),
    ]


def _quality(limits: dict[str, float]) -> list[Panel]:
    below = _rate("duet_anomaly_p_value_bucket", "model, le", 'le=~"0.01|0.05|0.1|0.5"')
    share = f"{below} / on (model) group_left () {_rate('duet_anomaly_p_value_count', 'model')}"
    return [
        Panel(
            "Alarm of drift",
            (Query(f"duet_drift_alarm{{{OF}}}", "{{model}} {{instance}}"),),
            "short",
            alert="DuetDrift",
        ),
        Panel(
            "Evidence of drift, log10",
            (Query(f"duet_drift_evidence{{{OF}}}", "{{model}} {{kind}} {{instance}}"),),
            "short",
            limits=(8,),
            alert="DuetDrift",
        ),
        Panel("Repeated images", (Query(f"duet_drift_repeats{{{OF}}}", "{{model}} {{instance}}"),), "percentunit"),
        Panel("P-values: share up to 0.01, 0.05, 0.1, 0.5", (Query(share, "{{model}} {{le}}"),), "percentunit"),
        Panel("Images scored", (Query(_rate("duet_anomaly_p_value_count", "model"), "{{model}}"),), "ops"),
        Panel("Samples drawn", (Query(_rate("duet_generated_samples_total", "model"), "{{model}}"),), "ops"),
        Panel(
            "Predictions by class, last hour",
            (Query(f"duet:predictions:share1h{{{OF}}}", "{{model}} {{label}}"),),
            "percentunit",
            width=12,
        ),
        Panel(
            "Predictions that moved to other classes since the day before",
            (Query(f"duet:predictions:distance1h{{{OF}}}", "{{model}}"),),
            "percentunit",
            limits=(limits["DuetClassMix"],),
            alert="DuetClassMix",
            width=12,
        ),
    ]


def _cache(limits: dict[str, float]) -> list[Panel]:
    asked = 'result=~"hit|miss"'
    hits = _rate("duet_cache_requests_total", "tier", 'result="hit"')
    failed = _rate("duet_cache_requests_total", "job", 'tier="redis"', 'result=~"unavailable|corrupt"')
    redis = _rate("duet_cache_requests_total", "job", 'tier="redis"', 'result=~"hit|miss|unavailable"')
    exporter = '{namespace=~"$namespace"}'  # it has a job of its own
    return [
        Panel(
            "Hit ratio by tier",
            (Query(f"{hits} / {_rate('duet_cache_requests_total', 'tier', asked)}", "{{tier}}"),),
            "percentunit",
            alert="DuetCacheHitRatioDrop",
        ),
        Panel("Lookups", (Query(_rate("duet_cache_requests_total", "tier, result"), "{{tier}} {{result}}"),), "ops"),
        Panel(
            "Lookups in Redis that fail",
            (Query(f"({failed} or 0 * {redis}) / {redis}", "{{job}}"),),
            "percentunit",
            limits=(limits["DuetCacheErrors"],),
            alert="DuetCacheErrors",
        ),
        Panel(
            "Breaker: 0 Redis is used, 1 it is not",
            (Query(f"avg_over_time(duet_cache_redis_breaker{{{OF}}}[{RATE}])", "{{side}} {{instance}}"),),
            "short",
            limits=(limits["DuetRedisBreakerOpen"],),
            alert="DuetRedisBreakerOpen",
        ),
        Panel(
            "Redis command: 99 %",
            (Query(_quantile(0.99, "duet_cache_redis_duration_seconds", "command"), "{{command}}"),),
            "s",
        ),
        Panel("Round trip to Redis", (Query(f"duet_cache_redis_round_trip_seconds{{{OF}}}", "{{instance}}"),), "s"),
        Panel(
            "Items from which Redis is asked",
            (Query(f"max by (model, operation) (duet_cache_redis_from_items{{{OF}}})", "{{model}} {{operation}}"),),
            "short",
        ),
        Panel("Memory tier", (Query(f"duet_cache_memory_bytes{{{OF}}}", "{{instance}}"),), "bytes"),
        Panel(
            "Memory tier: evictions",
            (Query(f"rate(duet_cache_evictions_total{{{OF}}}[{RATE}])", "{{instance}}"),),
            "ops",
        ),
        Panel(
            "Redis: memory",
            (
                Query(f"redis_memory_used_bytes{exporter}", "used {{instance}}"),
                Query(f"redis_memory_max_bytes{exporter}", "limit {{instance}}"),
            ),
            "bytes",
        ),
        Panel("Redis: evictions", (Query(f"rate(redis_evicted_keys_total{exporter}[{RATE}])", "{{instance}}"),), "ops"),
        Panel("Redis: keys", (Query(f"sum by (instance) (redis_db_keys{exporter})", "{{instance}}"),), "short"),
        Panel("Redis: connections", (Query(f"redis_connected_clients{exporter}", "{{instance}}"),), "short"),
        Panel(
            "Redis: commands",
            (Query(f"rate(redis_commands_processed_total{exporter}[{RATE}])", "{{instance}}"),),
            "ops",
        ),
    ]


def _rollout(limits: dict[str, float]) -> list[Panel]:
    serving = f"count by ({SERVICE}, model, version, digest) (duet_model_info{{{OF}}})"
    replicas = f"count by ({SERVICE}) ({REPLICAS})"
    version = f"* on ({SERVICE}, instance) group_left (version) duet_build_info{{{OF}}}"
    errors = _rate("duet_request_duration_seconds_count", "namespace, job, instance", 'status=~"5..|429"')
    answers = _rate("duet_request_duration_seconds_count", "namespace, job, instance")
    return [
        Panel("What is served", (Query(serving, ""),), "short", "table", alert="DuetDigestSkew", width=24),
        Panel(
            "Share of the replicas that serve a digest",
            (Query(f"{serving} / on ({SERVICE}) group_left () {replicas}", "{{job}} {{model}} {{version}}"),),
            "percentunit",
            limits=(limits["DuetDigestSkew"],),
            below=True,
            alert="DuetDigestSkew",
        ),
        Panel(
            "Replicas",
            (
                Query(f"sum by (job) ({REPLICAS})", "{{job}} ready"),
                Query(f"count by (job) ({REPLICAS})", "{{job}} read"),
            ),
            "short",
            alert="DuetNotReady",
        ),
        Panel("Versions of Duet", (Query(f"count by (version) (duet_build_info{{{OF}}})", "{{version}}"),), "short"),
        Panel(
            "Answers by version of Duet",
            (Query(f"sum by (version) ({answers} {version})", "{{version}}"),),
            "reqps",
        ),
        Panel(
            "Share of errors by version of Duet",
            (
                Query(
                    f"sum by (version) (({errors} or 0 * {answers}) {version})"
                    f" / sum by (version) ({answers} {version})",
                    "{{version}}",
                ),
            ),
            "percentunit",
            alert="DuetErrorBudgetBurn",
        ),
        Panel(
            "Time of one more item by model version",
            (
                Query(
                    f"avg by (model, version, operation) (duet_item_seconds{{{OF}}})",
                    "{{model}} {{version}} {{operation}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Alarm of drift by model version",
            (Query(f"max by (model, version) (duet_drift_alarm{{{OF}}})", "{{model}} {{version}}"),),
            "short",
            alert="DuetDrift",
        ),
        Panel("Age of the replicas", (Query(f"time() - process_start_time_seconds{{{OF}}}", "{{instance}}"),), "s"),
    ]
