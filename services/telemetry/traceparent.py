"""The context of a caller's trace: `traceparent` and `tracestate` (W3C Trace Context, level 2).

A `traceparent` that is not as the recommendation has it counts as none, and its `tracestate` with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PARENT = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED = 1


class Parent(NamedTuple):
    """The span of the caller.

    Attributes:
        trace_id: 128 bits.
        span_id: 64 bits.
        sampled: whether the caller records this trace.
    """

    trace_id: int
    span_id: int
    sampled: bool


def parse(header: bytes) -> Parent | None:
    """The caller's span, None if the header is malformed."""
    found = PARENT.fullmatch(header.strip(b" \t"))
    if found is None or (found["version"] == b"00" and found[5] is not None):
        return None
    return Parent(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & SAMPLED))
