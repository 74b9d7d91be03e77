"""`Content-Encoding` of requests and answers: gzip and deflate (RFC 9110, 8.4.1)."""

from __future__ import annotations

import zlib

from services.errors import MalformedRequest, TooLarge, UnsupportedMedia


def decompress(body: bytes | bytearray, encoding: str, limit: int) -> bytes:
    """Undo `Content-Encoding`; never decompresses more than `limit` bytes.

    Raises:
        UnsupportedMedia, MalformedRequest, TooLarge.
    """
    if encoding not in ("gzip", "deflate"):
        message = f"Content-Encoding is {encoding[:40]!r}; send gzip or deflate"
        raise UnsupportedMedia(message, field="Content-Encoding")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        message = f"Content-Encoding says {encoding}, but the body is not {encoding}"
        raise MalformedRequest(message, field="body") from None
    if len(plain) > limit:
        raise TooLarge(f"the decompressed body has more than {limit} bytes; at most {limit} are allowed", field="body")
    if not inflater.eof:
        raise MalformedRequest(f"the {encoding} body is cut short", field="body")
    if inflater.unused_data:
        raise MalformedRequest(f"{len(inflater.unused_data)} bytes follow the {encoding} body", field="body")
    return plain


def compress(body: bytes, encoding: str) -> bytes:
    deflater = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()
