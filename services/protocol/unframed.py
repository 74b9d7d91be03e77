"""Answers of unknown length for clients that know no chunks."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class UnframedCycle(RequestResponseCycle):
    """An answer of unknown length ends with its connection: HTTP/1.0 knows no chunks (RFC 9112, 6.1 and 6.3)."""

    unframed = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.unframed = all(name.lower() != b"content-length" for name, _ in message["headers"])
            method = self.scope["method"]
            self.scope["method"] = "HEAD" if self.unframed else method  # for it uvicorn announces no chunks
            await super().send(message)
            self.scope["method"] = method
            return
        if self.unframed and self.scope["method"] != "HEAD":
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
