from pathlib import Path

import pytest

from training.studies.learning_curve.report import report, text
from training.studies.learning_curve.run import Cell, Curve

HEADER = {"dataset": "shells", "digest": "0123456789abcdef", "test": 1900, "source": None}


def cells(method: str, labels: int, *accuracies: float) -> list[Cell]:
    graph = {"graph_bytes": 12_345, "microseconds": {"1": 250.0, "64": 80.4}}
    return [
        Cell(method, labels, seed, accuracy, 1.5 + seed, **(graph if seed == 0 else {}))
        for seed, accuracy in enumerate(accuracies)
    ]


CURVE = Curve(
    HEADER,
    (
        *cells("SVM", 10, 0.8, 0.82, 0.84),
        *cells("CNN", 10, 0.7, 0.74, 0.78),
        *cells("SVM", 100, 0.9, 0.9, 0.9),
        *cells("CNN", 100, 0.95, 0.95),
    ),
)


def test_means_spreads_and_the_best_in_bold() -> None:
    table = text(CURVE, "figure.png")
    assert "| SVM | **82.00** ± 2.00 | 90.00 ± 0.00 |" in table
    assert "| CNN | 74.00 ± 4.00 | **95.00** ± 0.00 |" in table


def test_gains_are_of_the_same_subsets() -> None:
    table = text(CURVE, "figure.png")
    assert "| SVM | +8.00 ± 2.00 | -5.00 ± 0.00 |" in table


def test_time_size_and_speed_stand_beside() -> None:
    table = text(CURVE, "figure.png")
    assert "| SVM | 2.5 | 2.5 |" in table
    assert "| CNN | 12 | 250 | 80 |" in table
    assert "`duet learning-curve --dataset shells`" in table


def test_an_unfinished_curve_has_a_report_too(tmp_path: Path) -> None:
    path = report(Curve(HEADER, CURVE.cells[:4]), tmp_path)
    assert path.name == "learning_curve_shells.md"
    assert "| CNN | 70.00 ± 0.00 |" in path.read_text()


def test_the_figure_depends_on_nothing_but_the_curve(tmp_path: Path) -> None:
    pictures = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report(CURVE, tmp_path / name)
        pictures.append((tmp_path / name / "learning_curve_shells.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("source", ["fashion-mnist-cnn:0123456789ab", None])
def test_the_command_and_the_source_are_named(source: str | None) -> None:
    table = text(Curve(HEADER | {"source": source}, CURVE.cells), "figure.png")
    assert (f"`duet learning-curve --dataset shells --from {source}`" in table) == bool(source)
    assert ("left out, because no `--from` named" in table) == (source is None)


def test_what_chance_alone_does_is_said() -> None:
    table = text(CURVE, "figure.png")
    assert "on the 1,900 images of the test split" in table
    assert "1.0 points either way are chance" in table
