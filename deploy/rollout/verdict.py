"""Whether a canary is as good as the stable one: non-inferiority tests on shares, and how much traffic they need.

Each check compares a share of the canary with the same share of the stable one: of answers that are errors, of answers
slower than the stable one's p99, of images in a class, of p-values below a bound. The canary passes if the confidence
interval of the difference (R. Newcombe, Statistics in Medicine 17, 1998, method 10) lies within what is tolerated. So
traffic that is too little fails, and a difference that does not matter passes however much traffic there is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from deploy.rollout.evidence import Counts

RISK = 0.01  # that a canary which is worse by what is tolerated is promoted, at most
POWER = 0.95  # that a canary which is equal is promoted, once there is the traffic that is asked for
ERRORS = 0.005  # tolerated: half a percentage point more errors
SLOW = 0.01  # tolerated: one percentage point more answers beyond the p99 of the stable one
CLASSES = 0.05  # tolerated: five percentage points in the share of a class
P_VALUES = 0.05  # tolerated: the same in the share of p-values below a bound
CHANGED = 0.10  # tolerated: the share of pictures whose class is another
P_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5)  # at which p-values are compared


@dataclass(frozen=True)
class Share:
    """`hits` out of `of`."""

    hits: float
    of: float

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else 0.0


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: is compared, in words.
        tolerated: the difference from which on the canary is not promoted.
        both_sides: whether less is as bad as more.
    """

    what: str
    stable: Share
    canary: Share
    tolerated: float
    both_sides: bool = False

    @property
    def counted(self) -> Share:
        """The canary's share, of as many as the stable one has at most: beyond that the risk would be twice `RISK`."""
        kept = min(1.0, self.stable.of / self.canary.of) if self.canary.of else 1.0
        return Share(kept * self.canary.hits, kept * self.canary.of)

    @property
    def interval(self) -> tuple[float, float]:
        return difference(self.counted, self.stable)

    @property
    def passes(self) -> bool:
        """Whether the difference is surely less than what is tolerated."""
        lower, upper = self.interval
        return upper < self.tolerated and (lower > -self.tolerated or not self.both_sides)

    @property
    def is_worse(self) -> bool:
        """Whether the difference is surely more than what is tolerated."""
        lower, upper = self.interval
        return lower > self.tolerated or (self.both_sides and upper < -self.tolerated)

    def needed(self, checks: int) -> int:
        """Answers of the canary with which an equal one passes this check, and `checks` of them together."""
        luck = NormalDist().inv_cdf(1 - (1 - POWER) / checks)
        ratio = self.stable.of / self.counted.of if self.counted.of else 1.0
        return _least(lambda count: self._would_pass(count, ratio, luck))

    def _would_pass(self, count: int, ratio: float, luck: float) -> bool:
        """Whether an equal canary with so many requests passes when it has bad luck."""
        others = max(1.0, ratio * count)
        share = min(max(self.stable.value, 0.5 / others), 1 - 0.5 / others)
        unlucky = min(1.0, share + luck * math.sqrt(share * (1 - share) * (1 / count + 1 / others)))
        _, upper = difference(Share(unlucky * count, count), Share(share * others, others))
        return upper < self.tolerated


def difference(one: Share, other: Share) -> tuple[float, float]:
    """An interval of the first share minus the second, each end with the error `RISK`."""
    if not one.of or not other.of:
        return -1.0, 1.0
    (low, high), (other_low, other_high) = wilson(one), wilson(other)
    apart = one.value - other.value
    below = math.hypot(one.value - low, other_high - other.value)
    above = math.hypot(high - one.value, other.value - other_low)
    return apart - below, apart + above


def wilson(share: Share) -> tuple[float, float]:
    """E. Wilson's interval of a share (JASA 22, 1927), each end with the error `RISK`."""
    if not share.of:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - RISK)
    middle = (share.hits + z * z / 2) / (share.of + z * z)
    half = z / (share.of + z * z) * math.sqrt(share.of * share.value * (1 - share.value) + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def _least(holds: Callable[[int], bool]) -> int:
    """The least whole number from which on a condition holds."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def p99(counts: Counts) -> float:
    """The least bound of the histogram within which 99 % of the answers were made, in seconds."""
    total = counts.within.get(math.inf, 0.0)
    return next((bound for bound, count in sorted(counts.within.items()) if count >= 0.99 * total), math.inf)


def checks(stable: Counts, canary: Counts) -> list[Check]:
    """Everything that is compared."""
    bound = p99(stable)
    found = [
        Check("errors", Share(stable.errors, stable.requests), Share(canary.errors, canary.requests), ERRORS),
        Check(f"answers slower than {bound:g} s", _slower(stable, bound), _slower(canary, bound), SLOW),
    ]
    for label in sorted({*stable.classes, *canary.classes}):
        shares = (
            _of_images(counts, counts.classes.get(label, 0.0), sum(counts.classes.values()))
            for counts in (stable, canary)
        )
        found.append(Check(f"images of class {label}", *shares, CLASSES, both_sides=True))
    if stable.p_values or canary.p_values:
        for bound in P_BOUNDS:
            shares = (
                _of_images(counts, counts.p_values.get(bound, 0.0), counts.p_values.get(math.inf, 0.0))
                for counts in (stable, canary)
            )
            found.append(Check(f"p-values of at most {bound:g}", *shares, P_VALUES, both_sides=True))
    return found


def _slower(counts: Counts, bound: float) -> Share:
    total = counts.within.get(math.inf, 0.0)
    return Share(total - counts.within.get(bound, 0.0), total)


def _of_images(counts: Counts, hits: float, images: float) -> Share:
    """A share of images, which counts no more than one image a request: those of one request are alike."""
    answered = counts.requests - counts.errors
    weight = min(1.0, answered / counts.images) if counts.images else 1.0
    return Share(hits * weight, images * weight)


def refusals(found: Sequence[Check]) -> list[str]:
    """Why the canary is not promoted, a sentence each; empty if it is. Of what needs traffic, what needs most of it."""
    sentences = []
    missing = {}
    for check in found:
        if check.passes:
            continue
        needed, have = check.needed(len(found)), check.counted.of
        if check.is_worse or have >= needed:
            lower, upper = check.interval
            sentences.append(
                f"{check.what}: {100 * check.canary.value:.2f} % of the canary's {check.canary.of:.0f}, "
                f"{100 * check.stable.value:.2f} % of the stable one's {check.stable.of:.0f}; the difference is "
                f"{100 * lower:+.2f} to {100 * upper:+.2f} points, and {100 * check.tolerated:g} are tolerated"
            )
        else:
            scarce = "canary" if check.canary.of <= check.stable.of else "stable one"
            missing[needed / max(have, 1.0)] = (
                f"{check.what}: {needed - have:.0f} more answers of the {scarce} are needed, it has {have:.0f} of "
                f"{needed:.0f}"
            )
    return sentences + [missing[most] for most in sorted(missing)[-1:]]  # the others need less


def of_pictures(changed: Share) -> list[str]:
    """Why two versions that classify a share of the pictures differently are too different; empty if they are not."""
    lower, upper = wilson(changed)
    if upper < CHANGED:
        return []
    if changed.value < CHANGED:
        needed = _least(lambda count: wilson(Share(changed.value * count, count))[1] < CHANGED)
        return [
            f"pictures: {needed - changed.of:.0f} more are needed, there are {changed.of:.0f} of {needed:.0f}, and "
            f"{changed.hits:.0f} get another class"
        ]
    return [
        f"pictures: {changed.hits:.0f} of {changed.of:.0f} get another class, {100 * lower:.1f} to "
        f"{100 * upper:.1f} %, and {100 * CHANGED:g} % are tolerated"
    ]
