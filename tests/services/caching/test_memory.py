"""The memory tier holds no more than it may, and drops what was not asked for longest."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.caching.memory import OVERHEAD, MemoryTier
from services.telemetry import metrics

keys = st.sampled_from("abcdefgh")
values = st.integers(0, 120).map(bytes)


def cost(key: str, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD


class AgainstAList(RuleBasedStateMachine):
    """The tier beside a list of pairs, least recently used first, that is slow and plainly right."""

    @initialize(limit=st.integers(0, 3 * (OVERHEAD + 80)))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.tier = MemoryTier(limit)
        self.pairs: list[tuple[str, bytes]] = []

    @rule(batch=st.dictionaries(keys, values, max_size=4))
    def put(self, batch: dict[str, bytes]) -> None:
        asyncio.run(self.tier.put(batch))
        for key, value in batch.items():
            self.pairs = [pair for pair in self.pairs if pair[0] != key]
            if cost(key, value) <= self.limit:
                self.pairs.append((key, value))
        while sum(cost(*pair) for pair in self.pairs) > self.limit:
            del self.pairs[0]

    @rule(wanted=st.lists(keys, max_size=4))
    def get(self, wanted: list[str]) -> None:
        known = dict(self.pairs)
        assert asyncio.run(self.tier.get(wanted)) == [known.get(key) for key in wanted]
        for key in wanted:
            if key in known:
                self.pairs = [*(pair for pair in self.pairs if pair[0] != key), (key, known[key])]

    @rule(gone=st.lists(keys, max_size=3))
    def delete(self, gone: list[str]) -> None:
        asyncio.run(self.tier.delete(gone))
        self.pairs = [pair for pair in self.pairs if pair[0] not in gone]

    @rule()
    def close(self) -> None:
        asyncio.run(self.tier.close())
        self.pairs = []

    @invariant()
    def holds_what_it_should_and_counts_it(self) -> None:
        if not hasattr(self, "tier"):
            return
        assert list(self.tier._values.items()) == self.pairs
        assert self.tier._held == sum(cost(*pair) for pair in self.pairs) <= self.limit


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


async def test_the_least_recently_used_goes_first() -> None:
    tier = MemoryTier(2 * cost("a", b"x"))
    await tier.put({"a": b"1"})
    await tier.put({"b": b"2"})
    await tier.get(["a"])
    await tier.put({"c": b"3"})
    assert await tier.get(["a", "b", "c"]) == [b"1", None, b"3"]


async def test_a_value_larger_than_the_tier_costs_the_others_nothing() -> None:
    tier = MemoryTier(1000)
    await tier.put({"small": b"1"})
    await tier.put({"large": bytes(1000)})
    assert await tier.get(["small", "large"]) == [b"1", None]


async def test_a_value_that_grew_too_large_does_not_leave_its_old_self_behind() -> None:
    tier = MemoryTier(1000)
    await tier.put({"key": b"old"})
    await tier.put({"key": bytes(1000)})
    assert await tier.get(["key"]) == [None]


async def test_the_gauge_shows_the_bytes_held() -> None:
    tier = MemoryTier(1000)
    await tier.put({"a": b"value", "b": b""})
    assert metrics.CACHE_BYTES._value.get() == cost("a", b"value") + cost("b", b"")
    await tier.delete(["b"])
    assert metrics.CACHE_BYTES._value.get() == cost("a", b"value")
    await tier.close()
    assert metrics.CACHE_BYTES._value.get() == 0
