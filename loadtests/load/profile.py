"""The offered rate over time: requests a second that are due, whatever the server does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

FORMS = {
    "steady": "steady:RATE:SECONDS",
    "ramp": "ramp:FROM:TO:SECONDS",
    "spike": "spike:RATE:PEAK:SECONDS",
    "steps": "steps:FROM:TO:STEP:SECONDS",
    "search": "search:FROM:TO:STEP:SECONDS",
}


@dataclass(frozen=True)
class Phase:
    """Seconds in which the rate goes from `begin` to `end`, in requests a second."""

    begin: float
    end: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Phases, one after another.

    Attributes:
        search: whether the run ends after the first phase that missed its objectives.
    """

    phases: tuple[Phase, ...]
    search: bool = False

    @property
    def ends(self) -> list[float]:
        """Seconds from the start to the end of each phase."""
        return list(accumulate(phase.seconds for phase in self.phases))

    def phase(self, seconds: float) -> int | None:
        """The phase at a time since the start; None after the last one."""
        return next((index for index, end in enumerate(self.ends) if seconds < end), None)

    def rate(self, seconds: float) -> float | None:
        """Requests a second at a time since the start; None after the last phase."""
        index = self.phase(seconds)
        if index is None:
            return None
        phase = self.phases[index]
        passed = 1 - (self.ends[index] - seconds) / phase.seconds
        return phase.begin + (phase.end - phase.begin) * passed


def parse(text: str) -> Profile:
    """A profile as it is written on the command line.

    - `steady:200:60`: 200 requests a second for 60 s; a soak test is a long one
    - `ramp:10:200:60`: from 10 to 200 requests a second in 60 s
    - `spike:50:400:60`: 20 s at 50, 20 s at 400, 20 s at 50
    - `steps:50:200:50:20`: 20 s each at 50, 100, 150 and 200
    - `search:50:1000:50:10`: as steps, but the first step that misses its objectives is the last

    Raises:
        ValueError: the text is none of them.
    """
    kind, *fields = text.split(":")
    form = FORMS.get(kind)
    if form is None:
        raise ValueError(f"rate {text!r}: {kind!r} is no kind; the kinds are {', '.join(FORMS)}")
    names = form.split(":")[1:]
    if len(fields) != len(names):
        raise ValueError(f"rate {text!r}: {len(fields)} numbers are given; the form is {form}")
    numbers = [_number(text, form, name, field) for name, field in zip(names, fields, strict=True)]
    match kind:
        case "steady":
            return Profile((Phase(numbers[0], *numbers),))
        case "ramp":
            return Profile((Phase(*numbers),))
        case "spike":
            base, peak, seconds = numbers
            return Profile(tuple(Phase(rate, rate, seconds / 3) for rate in (base, peak, base)))
    begin, end, step, seconds = numbers
    if begin > end:
        raise ValueError(f"rate {text!r}: FROM {begin:g} is above TO {end:g}; the form is {form}")
    rates = [begin + step * index for index in range(int((end - begin) / step + 1e-9) + 1)]
    return Profile(tuple(Phase(rate, rate, seconds) for rate in rates), search=kind == "search")


def _number(text: str, form: str, name: str, field: str) -> float:
    try:
        number = float(field)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e7:
        raise ValueError(f"rate {text!r}: {name} is {field!r}, and must be a number above 0; the form is {form}")
    return number
