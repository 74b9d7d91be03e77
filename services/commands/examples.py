"""The examples at the end of each command's help; the tests run every one."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """A help page's last part: one command a line."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])
