"""The cache: tiers asked in turn, memory first. A miss, a failure and damage all mean the same: compute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from services.caching.memory import MemoryTier
from services.caching.redis import RedisTier, RedisUnavailable
from services.caching.values import CorruptValue, decode, encode
from services.settings import Settings
from services.telemetry import metrics

Item = dict[str, np.ndarray]


class Tier(Protocol):
    name: str

    async def get(self, keys: Sequence[str]) -> list[bytes | None]: ...
    async def put(self, values: Mapping[str, bytes]) -> None: ...
    async def delete(self, keys: Sequence[str]) -> None: ...
    async def close(self) -> None: ...


class Cache:
    """Answers by key, one an item.

    Args:
        tiers: fastest first; what a slower one finds is copied to the faster ones.
        value_bytes: larger values are not kept.
    """

    def __init__(self, tiers: Sequence[Tier], *, value_bytes: int) -> None:
        self._tiers = tuple(tiers)
        self._value_bytes = value_bytes

    @classmethod
    def from_settings(cls, settings: Settings) -> Cache:
        tiers: list[Tier] = []
        if settings.cache_memory_bytes:
            tiers.append(MemoryTier(settings.cache_memory_bytes))
        if url := settings.redis_url.get_secret_value():
            timeout = settings.redis_timeout_ms / 1000
            tiers.append(RedisTier(url, timeout_seconds=timeout, ttl_seconds=settings.cache_ttl_seconds))
        return cls(tiers, value_bytes=settings.cache_value_bytes)

    @property
    def holds_anything(self) -> bool:
        """Whether there is a tier at all."""
        return bool(self._tiers)

    async def get(self, keys: Sequence[str]) -> dict[str, Item]:
        """The items found, by key."""
        found: dict[str, Item] = {}
        missing = list(dict.fromkeys(keys))
        for position, tier in enumerate(self._tiers):
            if not missing:
                break
            values, items = await self._ask(tier, missing)
            await self._fill(self._tiers[:position], values)
            found |= items
            missing = [key for key in missing if key not in found]
        return found

    async def put(self, items: Mapping[str, Item]) -> None:
        """Keep computed items in every tier."""
        values = {key: encode(item) for key, item in items.items()}
        await self._fill(self._tiers, {key: v for key, v in values.items() if len(v) <= self._value_bytes})

    async def close(self) -> None:
        for tier in self._tiers:
            await tier.close()

    async def _ask(self, tier: Tier, keys: list[str]) -> tuple[dict[str, bytes], dict[str, Item]]:
        """What a tier holds of `keys`, as bytes and decoded; damaged values are deleted and count as misses."""
        try:
            values = await tier.get(keys)
        except RedisUnavailable:
            metrics.cache_requests(tier.name, "unavailable").inc(len(keys))
            return {}, {}
        sound: dict[str, bytes] = {}
        items: dict[str, Item] = {}
        damaged: list[str] = []
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            try:
                items[key] = decode(value)
                sound[key] = value
            except CorruptValue:
                damaged.append(key)
        metrics.cache_requests(tier.name, "hit").inc(len(sound))
        metrics.cache_requests(tier.name, "miss").inc(len(keys) - len(sound) - len(damaged))
        if damaged:
            metrics.cache_requests(tier.name, "corrupt").inc(len(damaged))
            with suppress(RedisUnavailable):  # then they stay, and count as misses until they expire
                await tier.delete(damaged)
        return sound, items

    async def _fill(self, tiers: Sequence[Tier], values: Mapping[str, bytes]) -> None:
        if not values:
            return
        for tier in tiers:
            try:
                await tier.put(values)
            except RedisUnavailable:
                metrics.cache_requests(tier.name, "unwritten").inc(len(values))
