"""The answer of `GET /drift`: for each scorer, whether the images of requests still resemble its calibration images."""

from __future__ import annotations

import time
from typing import Any

from services.dataplane import DataPlane
from services.inference.drift.alarms import Alarm
from services.inference.drift.detector import ALARM, Rate, utc
from services.inference.scorer import Scorer


def drift_report(plane: DataPlane) -> dict[str, Any]:
    """The answer, ready for JSON.

    Raises:
        NotReady: models are not loaded, or did not verify.
    """
    plane.check()
    now = time.time()
    return {"models": [_model(served.model, now) for served in plane.served if isinstance(served.model, Scorer)]}


def _model(scorer: Scorer, now: float) -> dict[str, Any]:
    bundle, drift = scorer.bundle, scorer.drift
    drift.settle(now)
    rates, active = drift.rates(), drift.alarms.active
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "alarm": active is not None,
        "alarm_ends_in_slices": drift.alarms.remaining(drift.slices) if active else None,
        "evidence_log10": drift.evidence(),
        "tolerated": drift.tolerated,
        "slice_seconds": drift.slice_seconds,
        "slices": drift.slices,
        "slices_to_a_false_alarm": ALARM,
        "images": drift.images,
        "repeats": drift.repeats,
        "p_values": [{"at_most": rate.expected} | _rate(rate) for rate in rates["rate"]],
        "classes": [
            {"label": label} | _rate(rate) for label, rate in zip(scorer.class_names, rates["class"], strict=True)
        ]
        if "class" in rates
        else None,
        "clients": [
            {
                "name": client.name,
                "evidence_log10": drift.evidence_of(client),
                "strange": client in drift.strange,
            }
            for client in drift.streams
        ],
        "alarms": [_alarm(scorer, alarm) for alarm in reversed(drift.alarms.all)],
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {"observed": rate.observed, "expected": rate.expected, "no_alarm_for": [rate.low, rate.high]}


def _alarm(scorer: Scorer, alarm: Alarm) -> dict[str, Any]:
    cause, events = alarm.cause, scorer.drift.events
    if cause.kind == "class":
        what: dict[str, Any] = {"label": scorer.class_names[cause.event - events.kinds["class"].start]}
    else:
        what = {"at_most": float(events.expected[cause.event])}
    observed = {"observed": cause.observed, "no_alarm_for": list(cause.allowed)}
    return {
        "raised": utc(alarm.raised),
        "ended": None if alarm.ended is None else utc(alarm.ended),
        "cause": {"kind": cause.kind} | what | observed,
        "slices": cause.slices,
        "clients": alarm.clients,
    }
