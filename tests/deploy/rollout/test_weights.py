"""Weights are changed where they stand, and nothing else of a file is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.rollout.weights import WeightError, find

PATCH = """\
# of duet-a
- op: replace
  path: /spec/rules/0/backendRefs
  value:
    - { name: duet-a, port: 3000, weight: 100 } # stable
    - { weight: 0,  name: "duet-a-canary", port: 3000 }
"""
ROUTE = """\
kind: HTTPRoute
metadata: {name: duet-b}
spec:
  rules:
  - backendRefs:
    - name: duet-b   # both rules
      weight: 100
    - name: duet-b-canary
      weight: 0
  - backendRefs:
    - name: duet-b
      weight: 100
    - name: duet-b-canary
      weight: 0
---
kind: Service
metadata: {name: duet-b}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "duet-a.yaml").write_text(PATCH)
    (tmp_path / "route.yaml").write_text(ROUTE)
    return tmp_path


def test_only_the_numbers_of_a_patch_change(overlay: Path) -> None:
    found = find(overlay, "duet-a")
    assert (found.path, found.canary_percent) == (overlay / "weights" / "duet-a.yaml", 0.0)
    moved = found.moved(7)
    assert moved == PATCH.replace("weight: 100", "weight: 93").replace("weight: 0,", "weight: 7,")
    found.path.write_text(moved)
    assert find(overlay, "duet-a").canary_percent == 7.0
    assert find(overlay, "duet-a").moved(0) == PATCH


def test_every_rule_of_a_route_gets_the_weights(overlay: Path) -> None:
    moved = find(overlay, "duet-b").moved(50)
    route, service = yaml.safe_load_all(moved)
    assert [one["weight"] for rule in route["spec"]["rules"] for one in rule["backendRefs"]] == [50, 50, 50, 50]
    assert service == {"kind": "Service", "metadata": {"name": "duet-b"}}
    assert "# both rules" in moved


def test_the_change_is_shown_as_a_diff(overlay: Path) -> None:
    found = find(overlay, "duet-a")
    lines = found.diff(found.moved(10)).splitlines()
    assert "-    - { name: duet-a, port: 3000, weight: 100 } # stable" in lines
    assert "+    - { name: duet-a, port: 3000, weight: 90 } # stable" in lines
    assert found.diff(found.moved(0)) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "0 of its files have backendRefs duet-c and duet-c-canary, each with a weight"),
        ("- {name: duet-c, weight: 100}\n- {name: duet-c-canary}\n", "0 of its files"),
        (PATCH.replace("duet-a", "duet-b"), "2 of its files have backendRefs duet-b"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_weights_that_are_not_in_one_file_are_refused(overlay: Path, text: str, said: str) -> None:
    (overlay / "more.yaml").write_text(text)
    with pytest.raises(WeightError, match=said):
        find(overlay, "duet-b" if "duet-b" in said else "duet-c")
