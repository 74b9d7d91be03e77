"""Where the runbook is: one section an alert."""

from __future__ import annotations

SITE = "https://duet.example"  # where an operator publishes the documentation


def runbook(alert: str) -> str:
    """The address of the section about an alert, on the site that `make docs` builds."""
    return f"{SITE}/how-to/runbook.html#{alert.lower()}"
