"""What is wrong with the head of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.errors import DuetError, MalformedRequest, NotImplementedHTTP


def wrong_head(
    method: bytes, version: str, headers: Sequence[tuple[bytes, bytes]], named: Mapping[bytes, bytes]
) -> DuetError | None:
    """What RFC 9110 and 9112 want refused and the parser lets pass.

    Args:
        method: of the request.
        version: of HTTP.
        headers: in order, names in lower case.
        named: the same by name.
    """
    if version not in ("1.1", "1.0"):
        return NotImplementedHTTP(f"HTTP version {version}; send HTTP/1.1", field="head")
    if (b"host" not in named and version == "1.1") or len(named) < len(headers):
        hosts = sum([name == b"host" for name, _ in headers])
        if hosts > 1 or (not hosts and version == "1.1"):
            return MalformedRequest(f"the request has {hosts} Host headers; send one", field="Host")
    if named.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        return NotImplementedHTTP("Transfer-Encoding: only chunked is understood", field="Transfer-Encoding")
    if method == b"CONNECT":
        return NotImplementedHTTP("CONNECT: this is no proxy", field="head")
    return None
