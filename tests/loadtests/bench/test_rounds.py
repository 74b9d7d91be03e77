"""Rounds interleave their targets, and ratios are taken within a round."""

from loadtests.bench.rounds import Figures, across, play, ratios


def test_every_target_is_measured_in_every_round_and_the_order_alternates() -> None:
    order: list[str] = []

    def measured(name: str) -> Figures:
        order.append(name)
        return Figures(float(len(order)), 1.0)

    rounds = play({name: lambda name=name: measured(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abccbaabc"
    assert [list(each) for each in rounds] == [["a", "b", "c"]] * 3
    assert [each["a"].images_per_second for each in rounds] == [1, 6, 7]


ROUNDS = [
    {"this": Figures(200, 10, 1.0, 2.0), "that": Figures(100, 40)},
    {"this": Figures(30, 30, 3.0, 6.0), "that": Figures(10, 60)},
]


def test_a_ratio_is_of_one_round() -> None:
    assert ratios(ROUNDS, "this", "that") == [2, 3]
    assert ratios(ROUNDS, "this", "that", "cpu_us") == [0.25, 0.5]


def test_what_has_no_latency_has_no_interval_of_it() -> None:
    assert across(ROUNDS, "that", "p99_ms") is None
    found = across(ROUNDS, "this", "p99_ms")
    assert found is not None
    assert (found.median, found.low, found.high) == (4, 2, 6)
