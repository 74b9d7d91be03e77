"""Which requests are traced, and what a batch notes at them."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from services.telemetry.trace import MOST, Batch, Command, Trace, Tracer

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


class Kept(list[Trace | Batch]):
    put = list.append


def header(trace: int = TRACE, flags: str = "01") -> dict[bytes, bytes]:
    return {b"traceparent": f"00-{trace:032x}-{SPAN:016x}-{flags}".encode()}


def test_a_caller_that_traces_is_followed() -> None:
    tracer = Tracer(0.0, Kept())
    trace = tracer.begin(header() | {b"tracestate": b"vendor=1"}, 2.0)
    assert trace is not None
    assert trace.parent is not None
    assert (trace.ids[0], trace.parent.span_id, trace.state, trace.begin) == (TRACE, SPAN, b"vendor=1", 2.0)
    assert trace.ids[1] not in (0, SPAN)
    assert trace.id == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_caller_that_does_not_trace_is_followed_too() -> None:
    assert Tracer(1.0, Kept()).begin(header(flags="00"), 0.0) is None


def test_a_caller_decides_nothing_where_it_is_not_asked() -> None:
    assert Tracer(0.0, Kept(), by_parent=False).begin(header(), 0.0) is None
    trace = Tracer(1.0, Kept(), by_parent=False).begin(header(flags="00"), 0.0)
    assert trace is not None
    assert trace.ids[0] == TRACE


def test_a_malformed_caller_begins_a_new_trace_without_its_state() -> None:
    headers = {b"traceparent": header()[b"traceparent"].upper(), b"tracestate": b"vendor=1"}
    trace = Tracer(1.0, Kept()).begin(headers, 0.0)
    assert trace is not None
    assert (trace.parent, trace.state) == (None, b"")
    assert trace.ids[0] not in (0, TRACE)
    assert Tracer(0.0, Kept()).begin(headers, 0.0) is None


def test_a_state_too_long_to_be_kept_is_left_out() -> None:
    trace = Tracer(0.0, Kept()).begin(header() | {b"tracestate": b"v=" + b"1" * 511}, 0.0)
    assert trace is not None
    assert trace.state == b""


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 1.0])
def test_the_share_of_new_traces_is_the_one_given(share: float) -> None:
    random.seed(0)
    tracer, count = Tracer(share, Kept()), 20_000
    traced = sum(tracer.begin({}, 0.0) is not None for _ in range(count))
    assert abs(traced - share * count) <= 4 * (share * (1 - share) * count) ** 0.5


@pytest.mark.parametrize("share", [0.01, 0.25, 0.9])
def test_services_with_one_share_choose_the_same_traces(share: float) -> None:
    """Every SDK of OpenTelemetry decides by the low half of the id."""
    random.seed(0)
    tracer, sampler = Tracer(share, Kept(), by_parent=False), TraceIdRatioBased(share)
    for _ in range(500):
        trace = random.getrandbits(128)
        sampled = sampler.should_sample(None, trace, "").decision.is_sampled()
        assert (tracer.begin(header(trace), 0.0) is not None) == sampled


def test_a_batch_and_the_requests_that_it_served_know_each_other() -> None:
    kept = Kept()
    tracer = Tracer(1.0, kept)
    first, second = (trace for _ in range(2) if (trace := tracer.begin({}, 0.0)))
    batch = Batch(("digits", "1", "sha256:0", "classify"), 5, 3, 2.0, 3.0)
    tracer.batch(batch, [(first, 1.0), (second, None)])
    assert kept == [batch]
    assert batch.served == [first.ids, second.ids]
    assert [(s.name, s.begin, s.end, s.batch) for s in first.stages] == [
        ("queue", 1.0, 2.0, None),
        ("compute", 2.0, 3.0, batch.ids),
    ]
    assert [s.name for s in second.stages] == ["compute"]
    assert (first.spans, second.spans, batch.spans) == (3, 2, 1)


def test_a_request_of_many_parts_notes_a_bounded_number() -> None:
    """As a stream has; what is left out is counted."""
    trace = Tracer(1.0, Kept()).begin({}, 0.0)
    assert trace is not None
    for part in range(MOST + 3):
        trace.stage("compute", part, part + 1)
        trace.command(Command("get", 1, None, part, part + 1, ""))
    assert (len(trace.stages), len(trace.commands), trace.left_out) == (MOST, MOST, 6)
