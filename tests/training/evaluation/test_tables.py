from __future__ import annotations

from services.inference.bundle import Gate
from training.evaluation.tables import gates_table, metrics_table, table


def test_table_escapes_bars() -> None:
    assert table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_class_metrics_get_a_table_of_their_own() -> None:
    text = metrics_table(
        {"accuracy": 0.5, "precision/T-shirt/top": 0.25, "recall/T-shirt/top": 0.75, "f1/T-shirt/top": 0.375}
    )
    assert "| accuracy | 0.5 |" in text
    assert "| T-shirt/top | 0.2500 | 0.7500 | 0.3750 |" in text
    assert "false" not in text


def test_what_samples_get_beside_real_images_is_not_a_class() -> None:
    text = metrics_table({"precision": 0.9, "recall": 0.8, "precision/real": 0.95, "recall/real": 0.85})
    assert [f"| {name} | {value} |" in text for name, value in [("precision", 0.9), ("recall/real", 0.85)]] == [
        True
    ] * 2
    assert "F1" not in text


def test_rates_are_not_taken_for_classes() -> None:
    assert "| false_positive_rate/0.05 | 0.04 |" in metrics_table({"false_positive_rate/0.05": 0.04})


def test_failed_gates_stand_out() -> None:
    gates = [
        Gate(metric="accuracy", value=0.5, bound=0.97, direction="at least"),
        Gate(metric="negative_elbo", value=100, bound=165, direction="at most"),
    ]
    assert "| accuracy | 0.5 | at least 0.97 | **no** |" in gates_table(gates)
    assert "| negative_elbo | 100 | at most 165 | yes |" in gates_table(gates)
