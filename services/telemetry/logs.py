"""Log lines: of Duet, one for an event and never one for each request; of other libraries, in the same form."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal

Form = Literal["text", "json"]

BURST_SECONDS = 5  # after a quiet time, so many seconds' worth of lines may come at once


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, process, message, and where there are any ids and exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        for name in ("request_id", "trace_id", "left_out"):
            if (value := getattr(record, name, None)) is not None:
                fields[name] = value
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class TextLines(logging.Formatter):
    """`TIME [LEVEL] [LOGGER] MESSAGE`, and a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        left_out = getattr(record, "left_out", 0)
        return f"{text} ({left_out} lines before this one were left out)" if left_out else text


class Bound(logging.Filter):
    """At most so many lines a second on the average; the next line that passes says how many were left out.

    Args:
        rate: lines a second; 0: no bound.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self._rate, self._free, self._then = rate, float(rate * BURST_SECONDS), time.monotonic()
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._rate:
            return True
        now = time.monotonic()
        self._free = min(self._free + (now - self._then) * self._rate, self._rate * BURST_SECONDS)
        self._then = now
        if self._free < 1:
            self._left_out += 1
            return False
        self._free -= 1
        if self._left_out:
            record.left_out, self._left_out = self._left_out, 0
        return True


def configure(form: Form = "text", rate: int = 0) -> None:
    """Send records of the `duet.*` loggers from INFO on to standard error, and switch off uvicorn's access log.

    uvicorn formats a line for every request (8 µs) if its logger has any handler above it, printed or not.

    Args:
        form: json: warnings and uncaught exceptions have this form, too.
        rate: lines a second of this process, on the average; 0: no bound.
    """
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    logger = logging.getLogger("duet")
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(Bound(rate))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if form == "json":
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)
        sys.excepthook = lambda kind, error, trace: logger.critical("the process ends", exc_info=(kind, error, trace))
