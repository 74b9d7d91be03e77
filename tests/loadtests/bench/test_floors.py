"""Floors are judged by the median of the ratios, in the right direction and of the right group."""

from loadtests.bench import floors, rivals
from loadtests.bench.rivals import BARE, BASELINE, BINARY, GROUPS, HIT
from loadtests.bench.rounds import Figures, Round


def done(**changes: Figures) -> dict[str, list[Round]]:
    """Three equal rounds of all groups, in which all rows are alike but for the changes."""
    plain = Figures(100, 100, 1.0, 2.0)
    rows = {group.name: [*group.duet, group.rival, group.raw[0]] for group in GROUPS}
    return {group: [{name: changes.get(name, plain) for name in names}] * 3 for group, names in rows.items()}


def met(found: dict[str, list[Round]]) -> dict[str, bool]:
    return {row["name"]: row["met"] for row in floors.judge(found)}


def test_equal_rows_meet_what_is_asked_of_equals() -> None:
    verdicts = met(done())
    assert [name for name, good in verdicts.items() if not good] == [
        f"{name} / {rivals.STOCK}" for name in (BINARY, rivals.V2_JSON, rivals.NATIVE_JSON, rivals.NATIVE_PNG)
    ]


def test_cpu_time_must_not_be_more_and_throughput_not_less() -> None:
    dear, slow = met(done(**{BINARY: Figures(100, 106, 1.0, 2.0)})), met(done(**{BINARY: Figures(94, 100, 1.0, 2.0)}))
    by_cpu, by_rate = f"CPU time a request: {BINARY} / {BARE}", f"{BINARY} / {BARE}"
    assert (dear[by_cpu], dear[by_rate]) == (False, True)
    assert (slow[by_cpu], slow[by_rate]) == (True, False)


def test_64_images_are_compared_with_bare_uvicorn_and_the_loop() -> None:
    verdicts = met(done(**{rivals.BINARY_64: Figures(92, 100, 1.0, 2.0)}))
    assert verdicts[f"{rivals.BINARY_64} / {rivals.BARE_64}"] is False
    assert verdicts[f"{rivals.BINARY_64} / {rivals.RAW_64}"] is True


def test_a_long_tail_misses_its_floor() -> None:
    assert met(done(**{BINARY: Figures(100, 100, 1.0, 4.5)}))["p99 / p50 of Duet V2 binary"] is False


def test_readme_s_ratio_is_at_its_place() -> None:
    """README and docs/results name it by its index."""
    assert floors.judge(done())[1]["name"] == f"{BINARY} / {rivals.STOCK}"


def test_the_median_of_the_rounds_decides() -> None:
    found = done()
    found[rivals.ONE] = [
        {**each, BINARY: Figures(rate, 100, 1.0, 2.0)}
        for each, rate in zip(found[rivals.ONE], (50, 96, 97), strict=True)
    ]
    row = floors.judge(found)[0]
    assert (row["median"], row["low"], row["high"], row["met"]) == (0.96, 0.5, 0.97, True)


def test_a_baseline_is_compared_row_by_row_and_is_no_floor() -> None:
    found = done(**{HIT: Figures(150, 50, 1.0, 1.0)})
    before = len(floors.judge(found))
    for each in (rounds := [dict(each) for each in found[rivals.ONE]]):
        each |= {name + BASELINE: Figures(100, 100, 1.0, 2.0) for name in (BINARY, HIT)}
    found[rivals.ONE] = rounds
    rows = floors.beside_baseline(found)
    assert [(row["name"], row["group"]) for row in rows] == [(BINARY, rivals.ONE), (HIT, rivals.ONE)]
    assert {what: rows[1][what]["median"] for what in floors.COMPARED} == {
        "images_per_second": 1.5,
        "cpu_us": 0.5,
        "p99_ms": 0.5,
    }
    assert len(floors.judge(found)) == before


def test_one_group_is_judged_by_its_own_floors() -> None:
    alone = {rivals.MANY: done()[rivals.MANY]}
    assert {row["group"] for row in floors.judge(alone)} == {rivals.MANY}
