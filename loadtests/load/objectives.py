"""The objectives of a load test: those of which the alerts are made."""

from __future__ import annotations

from pathlib import Path

from deploy.monitoring import objectives
from loadtests.load.verdict import Objective

FILE = objectives.FILE


def read(path: Path) -> list[Objective]:
    """The objectives in a file of Sloth's format.

    Raises:
        ValueError: something in it is not allowed; the message has the line.
    """
    try:
        found = objectives.read(path)
    except objectives.ObjectivesError as error:
        raise ValueError(str(error)) from None
    return [Objective(each.name, each.routes, round(each.percent / 100, 10), each.seconds) for each in found]
