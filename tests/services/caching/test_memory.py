"""The memory tier holds no more than it may, and drops what was not asked for longest."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.caching.memory import OVERHEAD, MemoryTier
from services.telemetry import metrics

keys = st.sampled_from("abcdefgh")
values = st.integers(0, 120).map(bytes)


def cost(key: str, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD


def evictions() -> float:
    return float(metrics.CACHE_EVICTIONS.labels().count)


class AgainstAList(RuleBasedStateMachine):
    """The tier beside a list of pairs, least recently used first, that is slow and plainly right."""

    @initialize(limit=st.integers(0, 3 * (OVERHEAD + 80)))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.tier = MemoryTier(limit)
        self.pairs: list[tuple[str, bytes]] = []
        self.before = evictions()
        self.evicted = 0

    @rule(batch=st.dictionaries(keys, values, max_size=4))
    def put(self, batch: dict[str, bytes]) -> None:
        self.tier.put(batch)
        for key, value in batch.items():
            self.pairs = [pair for pair in self.pairs if pair[0] != key]
            if cost(key, value) <= self.limit:
                self.pairs.append((key, value))
        while sum(cost(*pair) for pair in self.pairs) > self.limit:
            del self.pairs[0]
            self.evicted += 1

    @rule(wanted=st.lists(keys, max_size=4))
    def get(self, wanted: list[str]) -> None:
        known = dict(self.pairs)
        assert self.tier.get(wanted) == {key: known[key] for key in wanted if key in known}
        for key in wanted:
            if key in known:
                self.pairs = [*(pair for pair in self.pairs if pair[0] != key), (key, known[key])]

    @rule()
    def clear(self) -> None:
        self.tier.clear()
        self.pairs = []

    @invariant()
    def holds_what_it_should_and_counts_it(self) -> None:
        if not hasattr(self, "tier"):
            return
        assert list(self.tier._values.items()) == self.pairs
        assert self.tier._held == sum(cost(*pair) for pair in self.pairs) <= self.limit
        assert evictions() - self.before == self.evicted


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_least_recently_used_goes_first() -> None:
    tier = MemoryTier(2 * cost("a", b"x"))
    tier.put({"a": b"1"})
    tier.put({"b": b"2"})
    tier.get(["a"])
    tier.put({"c": b"3"})
    assert tier.get(["a", "b", "c"]) == {"a": b"1", "c": b"3"}


def test_a_value_larger_than_the_tier_costs_the_others_nothing() -> None:
    before, tier = evictions(), MemoryTier(1000)
    tier.put({"small": b"1"})
    tier.put({"large": bytes(1000)})
    assert tier.get(["small", "large"]) == {"small": b"1"}
    assert evictions() == before


def test_a_value_that_grew_too_large_does_not_leave_its_old_self_behind() -> None:
    tier = MemoryTier(1000)
    tier.put({"key": b"old"})
    tier.put({"key": bytes(1000)})
    assert tier.get(["key"]) == {}


def test_what_makes_room_for_others_is_counted() -> None:
    before, tier = evictions(), MemoryTier(3 * cost("a", b"x"))
    tier.put(dict.fromkeys("abcdefgh", b"x"))
    assert list(tier.get("abcdefgh")) == ["f", "g", "h"]
    assert evictions() - before == 5


def test_the_gauge_shows_the_bytes_held() -> None:
    tier = MemoryTier(1000)
    tier.put({"a": b"value", "b": b""})
    assert metrics.CACHE_BYTES._value.get() == cost("a", b"value") + cost("b", b"")
    tier.put({"a": b"other value"})
    assert metrics.CACHE_BYTES._value.get() == cost("a", b"other value") + cost("b", b"")
    tier.clear()
    assert metrics.CACHE_BYTES._value.get() == 0
