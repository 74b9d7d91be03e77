"""Metrics: the reference page and the code have the same."""

from __future__ import annotations

from prometheus_client import REGISTRY

from services.telemetry import metrics
from tests.docs.pages import REFERENCE, rows


def test_every_metric_is_described() -> None:
    families = {family.name: (family.type, family.documentation) for family in REGISTRY.collect()}
    own = {name: about for name, about in families.items() if name.startswith("duet_")}
    assert metrics.exposition()[0]
    expected = {
        f"`{name}_total`" if kind == "counter" else f"`{name}`": [kind, text] for name, (kind, text) in own.items()
    }
    assert {row[0]: row[1:] for row in rows((REFERENCE / "metrics.md").read_text())} == expected
