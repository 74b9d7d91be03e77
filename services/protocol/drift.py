"""The answer of `GET /drift`: for each scorer, whether the images of requests still resemble its calibration images."""

from __future__ import annotations

from typing import Any

from services.dataplane import DataPlane
from services.inference.drift import ALARM, Rate
from services.inference.scorer import Scorer


def drift_report(plane: DataPlane) -> dict[str, Any]:
    """The answer, ready for JSON.

    Raises:
        NotReady: models are not loaded, or did not verify.
    """
    plane.check()
    return {"models": [_model(served.model) for served in plane.served if isinstance(served.model, Scorer)]}


def _model(scorer: Scorer) -> dict[str, Any]:
    bundle, drift = scorer.bundle, scorer.drift
    rates = drift.rates()
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "images": drift.images,
        "alarm": drift.alarm_at is not None,
        "alarm_at_image": drift.alarm_at,
        "evidence_log10": drift.evidence(),
        "images_to_a_false_alarm": ALARM,
        "p_values": [{"at_most": rate.expected} | _rate(rate) for rate in rates["p_value"]],
        "classes": [
            {"label": label} | _rate(rate) for label, rate in zip(scorer.class_names, rates["class"], strict=True)
        ]
        if "class" in rates
        else None,
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {"observed": rate.observed, "expected": rate.expected, "no_alarm_for": [rate.low, rate.high]}
