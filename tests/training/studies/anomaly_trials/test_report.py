from __future__ import annotations

from pathlib import Path

import pytest

from training.studies.anomaly_trials.report import text, trials_report
from training.studies.anomaly_trials.run import Trial, Trials

HEADER = {"protocol": "one-class", "dataset": "mnist", "digest": "0123456789abcdef", "method": "by hand"}
DONE = (
    Trial("0", 980, 9020, 0.99, 0.985, 0.992, 0.8, 0.011, 0.05, 40.0),
    Trial("1", 1135, 8865, 0.95, 0.94, 0.96, 0.4, 0.009, 0.06, 60.0),
)


def test_rows_and_their_mean() -> None:
    report = text(Trials(HEADER, DONE), "figure.png")
    assert report.startswith("# mnist, one-class: by hand\n")
    assert "| 0 | 980 | 9,020 | 0.9900 [0.9850, 0.9920] | 80.00% | 1.10% | 5.00% |" in report
    assert "| mean ± standard deviation |  |  | **0.9700** ± 0.0283 | 60.00% | 1.00% | 5.50% |" in report
    assert "took 50 s" in report
    assert "`0123456789ab`" in report


@pytest.mark.parametrize(
    ("changed", "published"),
    [({}, True), ({"dataset": "shells"}, False), ({"protocol": "held-out classes"}, False)],
)
def test_published_figures_stand_beside_the_same_protocol_and_data_alone(changed: dict, published: bool) -> None:
    report = text(Trials(HEADER | changed, DONE), "figure.png")
    assert ("| OCGAN (Perera et al., CVPR 2019) | 0.975 |" in report) == published
    assert ("## Published" in report) == published


def test_one_trial_has_a_report_too(tmp_path: Path) -> None:
    header = HEADER | {"protocol": "held-out classes", "dataset": "fashion-mnist"}
    path = trials_report(Trials(header, DONE[:1]), tmp_path / "new")
    assert path.name == "held_out_classes_fashion_mnist.md"
    assert "| **0.9900** | 80.00% |" in path.read_text()
    assert f"]({path.with_suffix('.png').name})" in path.read_text()
    assert path.with_suffix(".png").stat().st_size > 5000


def test_the_figure_depends_on_nothing_but_the_trials(tmp_path: Path) -> None:
    one, two = (trials_report(Trials(HEADER, DONE), tmp_path / name).with_suffix(".png") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
