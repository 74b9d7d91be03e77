"""Duet's own log lines, beside BentoML's: one line for an event, never one for each request."""

from __future__ import annotations

import logging
import sys


def configure() -> None:
    """Send records of the `duet.*` loggers from INFO on to standard error, and switch off uvicorn's access log.

    uvicorn formats a line for every request (8 µs) if its logger has any handler above it, printed or not.
    """
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    logger = logging.getLogger("duet")
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
