"""Locust's JSON is read as it is."""

import json

import pytest

from loadtests.bench.crosscheck import LocustResult, parse

ROW = {
    "num_requests": 4,
    "num_failures": 0,
    "start_time": 10.0,
    "last_request_timestamp": 12.0,
    "response_times": {"5": 1, "1": 1, "2.0": 2},
}


def test_rate_and_median() -> None:
    assert parse(json.dumps([ROW]), "") == LocustResult(2.0, 2.0, 0)


def test_failures_and_no_result_stop_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="1 of 4 requests failed"):
        parse(json.dumps([ROW | {"num_failures": 1}]), "")
    with pytest.raises(SystemExit, match="no result"):
        parse("", "Traceback")
