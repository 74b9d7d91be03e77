"""Whether a run met its objectives, and whether it can say so.

Exit statuses: 0 met, 1 missed, 2 bad input, 3 invalid: the load generator was the bottleneck, or a worker died.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.load.outcomes import Outcome, Outcomes

MET, MISSED, BAD_INPUT, INVALID = 0, 1, 2, 3
LAG_SECONDS, LAG_SHARE = 0.01, 0.1  # 99 % of the requests must leave within it, or within this share of an objective


@dataclass(frozen=True)
class Objective:
    """What share of the requests of some routes must be good.

    Attributes:
        routes: a regular expression of the routes that it is about; empty: all of them.
        share: from 0 to 1.
        seconds: a good request is answered rightly within it; None: however long it takes.
    """

    name: str
    routes: str
    share: float
    seconds: float | None = None


@dataclass(frozen=True)
class Result:
    """An objective beside what was measured."""

    objective: Objective
    good: int
    total: int

    @property
    def share(self) -> float:
        return self.good / self.total if self.total else 1.0

    @property
    def met(self) -> bool:
        return self.share >= self.objective.share

    def __str__(self) -> str:
        wanted = f"{100 * self.objective.share:g} %"
        within = "" if self.objective.seconds is None else f" within {1000 * self.objective.seconds:g} ms"
        found = f"{100 * self.share:.4g} % of {self.total}"
        return f"{self.objective.name}: {found} answered rightly{within}, wanted {wanted}"


@dataclass
class Generator:
    """What the load generator says of itself.

    Attributes:
        lag: seconds within which 99 % of the requests left after they were due.
        troubles: reasons for which nothing can be concluded, such as a worker that died.
    """

    lag: float = 0.0
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The exit status, with reasons in sentences."""

    status: int
    results: tuple[Result, ...]
    reasons: tuple[str, ...]


def measure(objective: Objective, outcomes: Outcomes, seconds: range | None = None) -> Result:
    """How many requests of the objective's routes were good; of the whole run, or of some seconds of it."""
    routes = [route for route in outcomes.routes() if re.fullmatch(objective.routes or ".*", route)]
    total = sum(sum(outcomes.count(route, seconds).values()) for route in routes)
    if objective.seconds is None:
        good = sum(outcomes.count(route, seconds)[Outcome.right] for route in routes)
    else:
        micros = round(objective.seconds * 1e6)
        good = sum(outcomes.count_within(route, micros, seconds) for route in routes)
    return Result(objective, good, total)


def decide(
    outcomes: Outcomes, objectives: Sequence[Objective], generator: Generator, seconds: range | None = None
) -> Verdict:
    """The verdict on a run, or on some seconds of it."""
    results = tuple(measure(objective, outcomes, seconds) for objective in objectives)
    troubles = list(generator.troubles)
    shortest = min((objective.seconds for objective in objectives if objective.seconds is not None), default=0.0)
    allowed = max(LAG_SECONDS, LAG_SHARE * shortest)
    if generator.lag > allowed:
        troubles.append(
            f"1 % of the requests left {1000 * generator.lag:.0f} ms late or later, and {1000 * allowed:.0f} ms are "
            "allowed: this machine sends too slowly; use workers (--processes) or a lower rate"
        )
    if not any(result.total for result in results):
        troubles.append("no request was due")
    if troubles:
        return Verdict(INVALID, results, tuple(troubles))
    missed = tuple(str(result) for result in results if not result.met)
    return Verdict(MISSED if missed else MET, results, missed)
