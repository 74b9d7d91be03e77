"""Bodies in memory: each is bounded, all together are, and what was counted is given back."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.types import Message

from services.call import Call
from services.errors import BodiesFull, CallerLeft, DeadlineExceeded, MalformedRequest, TooLarge, UnsupportedMedia
from services.protocol.body import Bodies, Body
from services.protocol.json_slices import NotJSON
from services.scheduling.offload import INLINE_BYTES, Offload
from services.settings import Settings


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    """Bodies of 1,000 bytes each, 2,500 in all."""
    offload = Offload()
    yield Bodies(Settings().model_copy(update={"body_bytes": 1000, "bodies_bytes": 2500}), offload)
    offload.close()


def arriving(bodies: Bodies, *chunks: bytes, ends: bool = True, headers: dict[bytes, bytes] | None = None) -> Body:
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) or not ends}
        for i, chunk in enumerate(chunks, 1)
    ]
    incoming = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(incoming)

    return Body(bodies, receive, headers or {})


async def test_a_body_is_counted_until_its_request_ends(bodies: Bodies) -> None:
    body = arriving(bodies, b"a" * 400, b"b" * 300)
    assert await body.read(Call()) == b"a" * 400 + b"b" * 300
    assert bodies.held == 700
    body.close()
    body.close()
    assert bodies.held == 0


async def test_what_exceeds_the_memory_for_all_is_refused_and_loses_nothing_of_others(bodies: Bodies) -> None:
    first, second, third = (arriving(bodies, bytes(900)) for _ in range(3))
    await first.read(Call())
    await second.read(Call())
    with pytest.raises(BodiesFull, match="take 1800 bytes, and 2500 are allowed") as caught:
        await third.read(Call())
    assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
    for body in (third, first):
        body.close()
    assert bodies.held == 900
    await arriving(bodies, bytes(900)).read(Call())


async def test_one_body_may_always_be_as_large_as_allowed() -> None:
    small = Bodies(Settings().model_copy(update={"body_bytes": 1000, "bodies_bytes": 1}), Offload())
    assert len(await arriving(small, bytes(1000)).read(Call())) == 1000


async def test_a_body_that_grows_beyond_its_limit_is_refused(bodies: Bodies) -> None:
    body = arriving(bodies, bytes(600), bytes(600))
    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        await body.read(Call())
    body.close()
    assert bodies.held == 0


async def test_a_client_that_leaves_halfway_is_no_rejection(bodies: Bodies) -> None:
    with pytest.raises(CallerLeft):
        await arriving(bodies, b"half", ends=False).read(Call())


async def test_a_body_that_does_not_come_ends_at_the_deadline(bodies: Bodies) -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(DeadlineExceeded, match="the body did not arrive before the deadline"):
        await Body(bodies, receive, {}).read(Call(deadline=time.monotonic() + 0.01))


async def test_a_compressed_body_is_decompressed_and_counted(bodies: Bodies) -> None:
    body = arriving(bodies, packed := gzip.compress(b"a" * 900), headers={b"content-encoding": b"gzip"})
    assert await body.read(Call()) == b"a" * 900
    assert bodies.held == len(packed) + 900


@pytest.mark.parametrize(
    ("content", "encoding", "kind"),
    [
        (gzip.compress(bytes(1001), mtime=0), b"gzip", TooLarge),
        (b"plain", b"gzip", MalformedRequest),
        (b"x", b"br", UnsupportedMedia),
    ],
)
async def test_a_compression_that_is_not_what_it_says_is_named(
    bodies: Bodies, content: bytes, encoding: bytes, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await arriving(bodies, content, headers={b"content-encoding": encoding}).read(Call())


LARGE = b"[" + b"1," * INLINE_BYTES + b"1]"


async def test_long_json_is_parsed_and_freed_in_a_thread_without_the_garbage_collector(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def loads(text: bytes) -> object:
        seen.append((threading.get_ident() != here, gc.isenabled()))
        return [1, 2]

    here = threading.get_ident()
    monkeypatch.setattr("services.protocol.json_slices.loads", loads)
    body = arriving(bodies, b"")
    tree = await body.parse(LARGE, Call())
    assert (tree, seen) == ([1, 2], [(True, False)])
    assert not gc.isenabled()
    body.close()
    for _ in range(1000):  # until the thread has freed it
        await asyncio.sleep(0.01)
        if gc.isenabled():
            break
    assert gc.isenabled()
    assert tree == []


async def test_after_long_text_that_is_no_json_the_next_one_is_parsed(bodies: Bodies) -> None:
    broken = arriving(bodies, b"")
    with pytest.raises(NotJSON):
        await broken.parse(LARGE[:-1], Call())
    broken.close()
    whole = arriving(bodies, b"")
    assert len(await whole.parse(LARGE, Call())) == INLINE_BYTES + 1
    waits = arriving(bodies, b"")
    with pytest.raises(DeadlineExceeded, match="other large bodies were not parsed"):
        await waits.parse(LARGE, Call(deadline=time.monotonic() + 0.05))
    whole.close()
