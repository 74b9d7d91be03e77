"""The goals of a plan: those of which the alerts are made."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.monitoring import objectives
from loadtests.capacity.plan import Goals

FILE = objectives.FILE
ROUTE = "/v2/models/any/infer"  # of the requests that were measured


def read(path: Path) -> Goals:
    """The objectives of availability and of the latency of classification.

    Raises:
        ValueError: one is missing, or something in the file is not allowed; the message has the line.
    """
    try:
        found = objectives.read(path)
    except objectives.ObjectivesError as error:
        raise ValueError(str(error)) from None
    available = [each for each in found if each.seconds is None]
    latency = [each for each in found if each.seconds is not None and re.fullmatch(each.routes, ROUTE)]
    if not available or not latency:
        raise ValueError(f"{path}: a plan needs an objective of availability, and one of the latency of {ROUTE}")
    seconds = latency[0].seconds
    assert seconds is not None
    return Goals(refused=available[0].budget, late=seconds, good=1 - latency[0].budget)
