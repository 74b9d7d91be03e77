"""The verdict's objectives are those of the alerts."""

from pathlib import Path

import pytest

from loadtests.load.objectives import FILE, read


def test_each_native_route_has_an_objective_of_latency() -> None:
    found = {objective.name: objective for objective in read(FILE)}
    assert found["availability"].seconds is None
    assert found["availability"].share == 0.999
    assert all(objective.seconds for name, objective in found.items() if name != "availability")


def test_a_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(FILE.read_text().replace("objective: 99.9", "objective: 100"))
    with pytest.raises(ValueError, match=r"slo\.yaml:\d+: slos\.0\.objective: 100; allowed: a percentage"):
        read(path)
