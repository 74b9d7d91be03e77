"""All rules, as a file for Prometheus and as an object for its operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from deploy.monitoring.alerts import groups
from deploy.monitoring.burn_rates import burn_rates
from deploy.monitoring.objectives import Objective

HEAD = "# Written by `make monitoring`; do not edit.\n"


def rules(objectives: Sequence[Objective]) -> dict[str, Any]:
    """What Prometheus reads.

    Args:
        objectives: the first one counts every request to a model.
    """
    causes = [{"name": name, "rules": [part.rule for part in parts]} for name, parts in groups(objectives[0]).items()]
    return {"groups": [burn_rates(objective) for objective in objectives] + causes}


def prometheus_rule(content: dict[str, Any]) -> dict[str, Any]:
    """The same as an object of the Prometheus Operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "duet"},
        "spec": content,
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_yaml(content: object) -> str:
    return HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
