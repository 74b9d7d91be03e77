"""Recorded traces: one line a request."""

from pathlib import Path

import pytest

from loadtests.load.trace import Arrival, read

ROUTES = {"/classify", "/score"}


def test_times_count_from_the_first_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at": 100.5, "route": "/classify", "items": 4}\n\n{"at": 101, "route": "/score"}\n')
    assert read(path, ROUTES) == [Arrival(0, "/classify", 4), Arrival(0.5, "/score", 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: it is not JSON"),
        ("[]", 'line 2: it must have the fields "at" and "route"'),
        ('{"at": 3}', 'line 2: it must have the fields "at" and "route"'),
        ('{"at": 3, "route": "/classify", "body": ""}', "line 2: it must have the fields"),
        ('{"at": "3", "route": "/classify"}', "line 2: at is '3'"),
        ('{"at": true, "route": "/classify"}', "line 2: at is True"),
        ('{"at": NaN, "route": "/classify"}', "line 2: at is nan"),
        ('{"at": 3, "route": "/drift"}', "line 2: route is '/drift'; known are /classify, /score"),
        ('{"at": 3, "route": "/score", "items": 0}', "line 2: items is 0"),
        ('{"at": 0.5, "route": "/score"}', "line 2: at is 0.5, before the line above"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f'{{"at": 1, "route": "/classify"}}\n{line}\n')
    with pytest.raises(ValueError, match="trace") as error:
        read(path, ROUTES)
    assert said in str(error.value)


def test_a_trace_that_is_empty_or_away_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="it has no lines"):
        read(tmp_path / "empty", ROUTES)
    with pytest.raises(ValueError, match="it cannot be read"):
        read(tmp_path / "missing", ROUTES)
