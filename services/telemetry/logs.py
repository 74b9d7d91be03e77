"""Log lines of Duet's own, beside BentoML's: one line an event, never one a request."""

from __future__ import annotations

import logging
import sys


def configure() -> None:
    """Send what `duet.*` loggers say at INFO and above to standard error, and silence uvicorn's access log.

    uvicorn puts a line together for every request (8 µs) if its logger has any handler above it, printed or not.
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
