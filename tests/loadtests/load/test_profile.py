"""The offered rate over time, as it is written on the command line."""

import pytest

from loadtests.load.profile import parse


def test_a_steady_rate_ends() -> None:
    steady = parse("steady:200:60")
    assert [steady.rate(at) for at in (0, 59.9, 60)] == [200, 200, None]


def test_a_ramp_rises_evenly() -> None:
    ramp = parse("ramp:10:110:50")
    assert [ramp.rate(at) for at in (0, 25, 49)] == pytest.approx([10, 60, 108])


def test_a_spike_has_three_parts() -> None:
    spike = parse("spike:50:400:60")
    assert [spike.rate(at) for at in (19, 21, 39, 41, 60)] == [50, 400, 400, 50, None]


def test_steps_include_the_last_one() -> None:
    steps = parse("steps:50:200:50:20")
    assert [phase.begin for phase in steps.phases] == [50, 100, 150, 200]
    assert steps.ends == [20, 40, 60, 80]
    assert not steps.search
    assert parse("search:50:200:50:20").search


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wave:1:2", "'wave' is no kind; the kinds are steady, ramp"),
        ("steady:40", "the form is steady:RATE:SECONDS"),
        ("steady:40:x", "SECONDS is 'x', and must be a number above 0"),
        ("steady:0:5", "RATE is '0'"),
        ("steady:nan:5", "RATE is 'nan'"),
        ("steps:200:50:50:20", "FROM 200 is above TO 50"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="rate") as error:
        parse(text)
    assert said in str(error.value)
