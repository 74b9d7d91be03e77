"""Rules that watch how fast the budgets for errors are spent, by several windows and burn rates.

The method is that of the Site Reliability Workbook (B. Beyer and others, 2018), chapter 5. Names and labels of what is
recorded are Sloth's, so its dashboards show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.monitoring.objectives import WINDOW, Objective
from deploy.monitoring.runbook import runbook

Rule = dict[str, Any]

PERIOD_DAYS = 30
LEAST_ERRORS = 10  # in the long window: with little traffic, a few errors are a large share and tell nothing
UNITS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Window:
    """A pair of windows: the long one tells that it matters, the short one that it still goes on.

    Attributes:
        severity: of the alert.
        spent: the share of the period's budget that is spent when the alert fires, if the errors began within `long`.
        short, long: lengths, as Prometheus writes them.
    """

    severity: str
    spent: float
    short: str
    long: str

    @property
    def factor(self) -> float:
        """How many times as fast as allowed the budget is spent."""
        return round(self.spent * PERIOD_DAYS * 86400 / seconds(self.long), 10)


WINDOWS = (
    Window("page", 0.02, "5m", "1h"),
    Window("page", 0.05, "30m", "6h"),
    Window("ticket", 0.1, "2h", "1d"),
    Window("ticket", 0.1, "6h", "3d"),
)


def seconds(length: str) -> int:
    """Of a length such as 5m."""
    return int(length[:-1]) * UNITS[length[-1]]


def burn_rates(
    objective: Objective, windows: Sequence[Window] = WINDOWS, least_errors: float = LEAST_ERRORS
) -> dict[str, Any]:
    """The group of rules of an objective: what is recorded, then a page and a ticket."""
    labels = {
        "sloth_id": objective.id,
        "sloth_service": objective.service,
        "sloth_slo": objective.name,
        **objective.labels,
    }
    of = f'{{sloth_id="{objective.id}"}}'
    lengths = sorted({length for window in windows for length in (window.short, window.long)}, key=seconds)
    rules = [rule for length in lengths for rule in _recorded(objective, length, of)]
    days = f"{PERIOD_DAYS}d"
    rules += [
        {"record": "slo:objective:ratio", "expr": f"vector({objective.percent / 100:.10g})"},
        {"record": "slo:error_budget:ratio", "expr": f"vector({objective.budget:.10g})"},
        {"record": "slo:time_period:days", "expr": f"vector({PERIOD_DAYS})"},
        {"record": "slo:current_burn_rate:ratio", "expr": f"slo:sli_error:ratio_rate5m{of} / {objective.budget:.10g}"},
        {  # by events: an hour with little traffic counts little
            "record": "slo:period_error_budget_remaining:ratio",
            "expr": f"1 - sum_over_time(slo:sli_error:rate5m{of}[{days}])"
            f" / sum_over_time(slo:sli_total:rate5m{of}[{days}]) / {objective.budget:.10g}",
        },
    ]
    for rule in rules:
        rule["labels"] = {**labels, **rule.get("labels", {})}
    for severity in dict.fromkeys(window.severity for window in windows):
        pairs = [_burns(objective, window, of, least_errors) for window in windows if window.severity == severity]
        rules.append(
            {
                "alert": objective.alert,
                "expr": "\nor\n".join(pairs),
                "labels": {**labels, "severity": severity, "category": "service", **objective.alert_labels[severity]},
                "annotations": {
                    "summary": objective.description,
                    "description": f"{objective.percent:g} % of the requests of {{{{ $labels.job }}}} are to be good. "
                    "The budget for errors is spent too fast.",
                    "runbook_url": runbook(objective.alert),
                    **objective.annotations[severity],
                },
            }
        )
    return {"name": f"slo-{objective.id}", "interval": "30s", "rules": rules}


def _recorded(objective: Objective, length: str, of: str) -> list[Rule]:
    """Errors a second, events a second and the share of errors, in a window."""
    errors, total = (query.replace(WINDOW, length) for query in (objective.error_query, objective.total_query))
    sloth = "sloth_id, sloth_service, sloth_slo, sloth_window"
    labels = {"sloth_window": length}
    none = f"0 * slo:sli_total:rate{length}{of}"  # a service that has never failed has no series of errors
    return [
        {"record": f"slo:sli_total:rate{length}", "expr": total, "labels": labels},
        {
            "record": f"slo:sli_error:rate{length}",
            "expr": f"({errors})\nor ignoring ({sloth})\n{none}",
            "labels": labels,
        },
        {
            "record": f"slo:sli_error:ratio_rate{length}",
            "expr": f"slo:sli_error:rate{length}{of} / slo:sli_total:rate{length}{of}",
            "labels": labels,
        },
    ]


def _burns(objective: Objective, window: Window, of: str, least_errors: float) -> str:
    rate = f"{window.factor:.10g} * {objective.budget:.10g}"
    either = "max without (sloth_window) "
    return (
        f"(\n    {either}(slo:sli_error:ratio_rate{window.short}{of} > {rate})\n"
        f"  and\n    {either}(slo:sli_error:ratio_rate{window.long}{of} > {rate})\n"
        f"  and\n    {either}(slo:sli_error:rate{window.long}{of} * {seconds(window.long)} >= {least_errors:.10g})\n)"
    )
