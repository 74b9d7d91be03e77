"""The header of a caller's trace, as W3C Trace Context has it."""

from __future__ import annotations

import pytest

from services.telemetry.traceparent import Parent, parse

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
PARENT = Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (b"00-%s-%s-01" % (TRACE, SPAN), True),
        (b"00-%s-%s-00" % (TRACE, SPAN), False),
        (b"00-%s-%s-03" % (TRACE, SPAN), True),  # level 2: the second bit says that the id is random
        (b"00-%s-%s-02" % (TRACE, SPAN), False),
        (b" 00-%s-%s-01\t" % (TRACE, SPAN), True),
        (b"cc-%s-%s-01" % (TRACE, SPAN), True),  # a version of the future, which may have more fields
        (b"cc-%s-%s-01-what-comes" % (TRACE, SPAN), True),
    ],
)
def test_the_caller_and_its_decision_are_read(header: bytes, sampled: bool) -> None:
    assert parse(header) == PARENT._replace(sampled=sampled)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00",
        b"00-%s-%s" % (TRACE, SPAN),
        b"00-%s-%s-1" % (TRACE, SPAN),
        b"00-%s-%s-01-more" % (TRACE, SPAN),
        b"00-%s-%s-01-" % (TRACE, SPAN),
        b"00-%s-%s-01." % (TRACE, SPAN),
        b"00_%s_%s_01" % (TRACE, SPAN),
        b"00-%s-%s-0x" % (TRACE, SPAN),
        b"ff-%s-%s-01" % (TRACE, SPAN),
        b"0-%s-%s-01" % (TRACE, SPAN),
        b"00-%s-%s-01" % (TRACE.upper(), SPAN),
        b"00-%s-%s-01" % (TRACE[:-1], SPAN),
        b"00-%s-%s-01" % (b"0" * 32, SPAN),
        b"00-%s-%s-01" % (TRACE, b"0" * 16),
        b"00-%s-%s-01" % (TRACE, SPAN + b"0"),
        b"00-%s-%s-01\n" % (TRACE, SPAN),
        b"cc-%s-%s-01.what" % (TRACE, SPAN),
        b"\xff" * 55,
    ],
)
def test_a_malformed_header_counts_as_none(header: bytes) -> None:
    assert parse(header) is None
