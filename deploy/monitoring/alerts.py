"""Alerts on causes: queues, refusals, the event loop, the cache, models, the images that come, and missing targets.

They are tickets, because the objectives page when users notice; a service that no longer answers at all pages too.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any

from deploy.monitoring.objectives import Objective
from deploy.monitoring.runbook import runbook

SERVICE = "namespace, job"  # the replicas of a service


@dataclass(frozen=True)
class Alert:
    """A rule that raises an alert.

    Attributes:
        name: of the alert; the runbook has a section of that name.
        expr: a query with `$limit`, and `$least` if it has a floor for little traffic.
        limit: what may not be passed.
        minutes: how long it has to last.
        summary: one sentence, with Prometheus' templates.
        least: events below which there is no alert; 0: there is no floor.
        severity: page or ticket.
        category: who can help: the operators of the service, or those who made the models (quality).
    """

    name: str
    expr: str
    limit: float
    minutes: float
    summary: str
    least: float = 0
    severity: str = "ticket"
    category: str = "service"

    @property
    def rule(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": Template(self.expr).substitute(limit=f"{self.limit:.10g}", least=f"{self.least:.10g}"),
            "for": f"{60 * self.minutes:.0f}s" if self.minutes % 1 else f"{self.minutes:.0f}m",
            "labels": {"severity": self.severity, "category": self.category},
            "annotations": {"summary": self.summary, "runbook_url": runbook(self.name)},
        }


@dataclass(frozen=True)
class Recording:
    """A rule that records the result of a query."""

    name: str
    expr: str

    @property
    def rule(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


def load(requests: Objective) -> list[Alert]:
    """Alerts on what happens under too much load.

    Args:
        requests: the objective whose events are all requests to models.
    """
    total = requests.total_query.replace("{{.window}}", "5m")
    refused = 'duet_rejections_total{reason=~"queue-full|bodies-full|too-many-connections"}[5m]'
    return [
        Alert(
            "DuetQueueWait",
            "histogram_quantile(0.99,\n"
            f"  sum by ({SERVICE}, model, le) (rate(duet_queue_duration_seconds_bucket[5m]))\n) > $limit",
            limit=0.25,
            minutes=10,
            summary="Requests of {{ $labels.job }} wait {{ $value | humanizeDuration }} for {{ $labels.model }}",
        ),
        Alert(
            "DuetRefusals",
            f"sum by ({SERVICE}) (rate({refused})) / (\n{total}) > $limit",
            limit=0.05,
            minutes=10,
            summary="{{ $labels.job }} refuses {{ $value | humanizePercentage }} of the requests",
        ),
        Alert(
            "DuetEventLoopLag",
            "avg_over_time(duet_event_loop_lag_seconds[10m]) > $limit",
            limit=0.05,
            minutes=5,
            summary="The event loop of {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
        ),
    ]


CACHE = [
    Recording(
        "duet:cache_lookups:rate1h",
        f'sum by ({SERVICE}, tier) (rate(duet_cache_requests_total{{result=~"hit|miss"}}[1h]))',
    ),
    Recording(
        "duet:cache_hits:ratio_rate1h",
        f'(\n  sum by ({SERVICE}, tier) (rate(duet_cache_requests_total{{result="hit"}}[1h]))\n'
        "  or 0 * duet:cache_lookups:rate1h\n) / duet:cache_lookups:rate1h",
    ),
    Recording(
        "duet:cache_hits:ratio_rate1d",
        f'sum by ({SERVICE}, tier) (rate(duet_cache_requests_total{{result="hit"}}[1d]))'
        f' / sum by ({SERVICE}, tier) (rate(duet_cache_requests_total{{result=~"hit|miss"}}[1d]))',
    ),
    Alert(
        "DuetCacheErrors",
        f'sum by ({SERVICE}) (rate(duet_cache_requests_total{{tier="redis",result=~"unavailable|corrupt"}}[5m]))\n/\n'
        f'sum by ({SERVICE}) (rate(duet_cache_requests_total{{tier="redis",result=~"hit|miss|unavailable"}}[5m]))\n'
        "> $limit",
        limit=0.05,
        minutes=10,
        summary="{{ $value | humanizePercentage }} of the lookups of {{ $labels.job }} in Redis fail",
    ),
    Alert(
        "DuetRedisBreakerOpen",
        f"max by ({SERVICE}, side) (avg_over_time(duet_cache_redis_breaker[5m])) > $limit",
        limit=0.5,
        minutes=5,
        summary="{{ $labels.job }} does not use Redis for {{ $labels.side }}",
    ),
    Alert(
        "DuetCacheHitRatioDrop",
        "duet:cache_hits:ratio_rate1h < $limit * duet:cache_hits:ratio_rate1d offset 1h\n"
        "and duet:cache_lookups:rate1h * 3600 >= $least",
        limit=0.5,
        minutes=30,
        summary="{{ $value | humanizePercentage }} of the lookups of {{ $labels.job }} hit the {{ $labels.tier }} tier",
        least=1000,
    ),
]

MODELS = [
    Alert(
        "DuetDigestSkew",
        f"count by ({SERVICE}, model, digest) (duet_model_info)\n"
        f"/ on ({SERVICE}) group_left () count by ({SERVICE}) (duet_ready) < $limit",
        limit=1,
        minutes=30,
        summary="{{ $labels.job }} serves {{ $labels.model }} with digest {{ $labels.digest }} on "
        "{{ $value | humanizePercentage }} of its replicas",
    ),
]

QUALITY = [
    Recording(
        "duet:predictions:share1h",
        f"sum by ({SERVICE}, model, label) (rate(duet_predictions_total[1h]))\n"
        f"/ on ({SERVICE}, model) group_left () sum by ({SERVICE}, model) (rate(duet_predictions_total[1h]))",
    ),
    Recording(
        "duet:predictions:share1d",
        f"sum by ({SERVICE}, model, label) (rate(duet_predictions_total[1d]))\n"
        f"/ on ({SERVICE}, model) group_left () sum by ({SERVICE}, model) (rate(duet_predictions_total[1d]))",
    ),
    Recording(  # the total variation distance; a class may be in one of the two only
        "duet:predictions:distance1h",
        f"0.5 * sum by ({SERVICE}, model) (\n"
        "    abs(duet:predictions:share1h - duet:predictions:share1d offset 1h)\n"
        "  or duet:predictions:share1h\n  or duet:predictions:share1d offset 1h\n)\n"
        f"and on ({SERVICE}, model) duet:predictions:share1d offset 1h",
    ),
    Alert(
        "DuetDrift",
        f"max by ({SERVICE}, model) (duet_drift_alarm) == $limit",
        limit=1,
        minutes=0,  # the detector has decided
        summary="The images that {{ $labels.model }} scores are no longer like its calibration images",
        category="quality",
    ),
    Alert(
        "DuetClassMix",
        "duet:predictions:distance1h > $limit\n"
        f"and sum by ({SERVICE}, model) (increase(duet_predictions_total[1h])) >= $least",
        limit=0.25,
        minutes=30,
        summary="{{ $value | humanizePercentage }} of the predictions of {{ $labels.model }} moved to other classes",
        least=1000,
        category="quality",
    ),
]

TARGETS = [
    Alert(
        "DuetAbsent",
        "absent(duet_ready == $limit)",
        limit=1,
        minutes=5,
        summary="No replica of any service is ready, or Prometheus reads none of them",
        severity="page",
    ),
    Alert(
        "DuetServiceDown",
        f"group by ({SERVICE}) (max_over_time(duet_ready[1d]) == $limit)\n"
        f"unless group by ({SERVICE}) (duet_ready == $limit)",
        limit=1,
        minutes=2,
        summary="No replica of {{ $labels.job }} is ready",
        severity="page",
    ),
    Alert(
        "DuetNotReady",
        "duet_ready != $limit",
        limit=1,
        minutes=15,
        summary="{{ $labels.instance }} is not ready",
    ),
    Alert(
        "DuetTargetDown",
        'up{job=~"duet.*"} != $limit',
        limit=1,
        minutes=5,
        summary="Prometheus cannot read {{ $labels.instance }} of {{ $labels.job }}",
    ),
]


def groups(requests: Objective) -> dict[str, list[Alert | Recording]]:
    """Every group of rules by its name."""
    return {
        "duet-load": [*load(requests)],
        "duet-cache": [*CACHE],
        "duet-models": [*MODELS],
        "duet-quality": [*QUALITY],
        "duet-targets": [*TARGETS],
    }
