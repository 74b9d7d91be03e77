import pytest

from training.loops.schedule import learning_rate


def test_constant() -> None:
    assert {learning_rate("constant", 0.1, progress / 10) for progress in range(11)} == {0.1}


def test_cosine_warms_up_then_falls_to_zero() -> None:
    rates = [learning_rate("cosine", 0.1, progress / 1000) for progress in range(1001)]
    peak = rates.index(max(rates))
    assert peak == 150
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(0)


def test_decay_holds_then_falls_to_two_per_cent() -> None:
    assert learning_rate("decay", 0.1, 0.6) == 0.1
    assert learning_rate("decay", 0.1, 0.8) == pytest.approx(0.1 * 0.51)
    assert learning_rate("decay", 0.1, 1.0) == pytest.approx(0.002)
