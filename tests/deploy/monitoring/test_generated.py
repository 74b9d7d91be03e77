"""What is committed is what `make monitoring` makes of the objectives, and a mistake in them is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.monitoring.__main__ import OPERATOR, written
from deploy.monitoring.objectives import BOUNDS, FILE, ObjectivesError, read
from services.protocol.v2.routes import INFER
from services.telemetry.metrics import REQUEST_SECONDS
from tests.deploy.monitoring.promtool import program

ROOT = Path(__file__).parents[3]
TEXTS = written()
MODEL_ROUTES = ("/classify", "/score", "/generate", "/interpolate", "/reconstruct", "/redraw", INFER)


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_what_is_committed_is_what_is_made(path: Path) -> None:
    assert (ROOT / path).read_text() == TEXTS[path], "run `make monitoring`"


def test_no_other_dashboard_is_committed() -> None:
    folder = ROOT / "deploy/monitoring/dashboards"
    assert {path.relative_to(ROOT) for path in folder.iterdir()} == {path for path in TEXTS if path.suffix == ".json"}


def test_the_operator_gets_the_same_rules() -> None:
    made = yaml.safe_load(TEXTS[OPERATOR])
    assert (made["apiVersion"], made["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert made["spec"] == yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())


def test_prometheus_accepts_its_configuration() -> None:
    command = [program("promtool", "prometheus"), "check", "config", "deploy/monitoring/prometheus.yaml"]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("route", MODEL_ROUTES)
def test_each_route_to_a_model_has_one_objective_of_latency_and_counts_for_availability(route: str) -> None:
    of = [objective.name for objective in read() if re.fullmatch(objective.routes, route)]
    assert len(of) == 2
    assert of[0] == "availability"


def test_thresholds_are_bounds_of_the_histogram() -> None:
    assert [f"{bound}" for bound in REQUEST_SECONDS._bounds] == BOUNDS


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("objective: 99.9", "objective: 100", ("100", "below 100")),
        ("objective: 99.9", "objective: 0", ("0", "above 0")),
        ("objective: 99.9", "objective: most", ("'most'", "a number")),
        ("objective: 99.9", "objectiv: 99.9", ("objectiv: an unknown key", "name, objective, description")),
        ("objective: 99.9", "objective: 99.9\n    objective: 99.5", ("there twice", "each key once")),
        ('le="0.25"', 'le="0.3"', ('le="0.3"', "0.25, 0.5")),
        ('le="1.0"', 'le="1"', ('le="1"', "1.0, 2.5")),
        ("version: prometheus/v1", "version: prometheus/v2", ("prometheus/v2", "prometheus/v1")),
        ("name: latency-score", "name: availability", ("there twice", "each name once")),
        ("name: latency-score", "name: Latency", ("'Latency'", "lower-case")),
        ("\nslos:", "\nslo:", ("slo: an unknown key", "version, service, labels, slos")),
        ("name: DuetErrorBudgetBurn", "nome: x", ("unknown key", "page_alert")),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_allowed(
    old: str, new: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    path, text = tmp_path / "slo.yaml", FILE.read_text()
    assert text.count(old) == 1
    wrong = text.replace(old, new)
    line = wrong.count("\n", 0, text.index(old) + len(new)) + 1
    path.write_text(wrong)
    with pytest.raises(ObjectivesError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert all(word in message for word in words), message


def test_a_query_without_a_window_is_told(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(FILE.read_text().replace("[{{.window}}]", "[5m]"))
    with pytest.raises(ObjectivesError, match="a query without a window"):
        read(path)


@pytest.mark.parametrize("content", ["", "a list", "- a\n- b\n", "version: [1]\n", "service: duet\n", "\x00"])
def test_a_file_of_another_kind_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(content)
    with pytest.raises(ObjectivesError, match="slo.yaml"):
        read(path)


def test_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(FILE.read_text().replace("objective: 99.9", "objective: 100"))
    command = [sys.executable, "-m", "deploy.monitoring", str(path)]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == (
        f"{path}:10: slos.0.objective: 100; "
        "allowed: a percentage above 0 and below 100, for at 100 no request may ever fail\n"
    )


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ObjectivesError, match="cannot be read"):
        read(tmp_path / "slo.yaml")
