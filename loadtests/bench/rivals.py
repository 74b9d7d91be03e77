"""What `make bench` measures: groups of rows that are compared with each other, and the servers that answer them."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtests.bench import network, request, rounds, server
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.rounds import Case, Targets
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

BINARY = "Duet V2 binary"
V2_JSON = "Duet V2 JSON"
NATIVE_JSON = "Duet native JSON"
NATIVE_PNG = "Duet native multipart PNG"
HIT = "Duet V2 binary, cache hit"
BINARY_64 = "Duet V2 binary, 64 images"
STOCK = "stock BentoML JSON"
BARE = "bare uvicorn V2 binary"
BARE_64 = "bare uvicorn V2 binary, 64 images"
RAW = "raw ONNX Runtime loop, batch 1"
RAW_64 = "raw ONNX Runtime loop, batch 64"
BASELINE = " (baseline)"

ONE, MANY, STOCKED = "1 image", "64 images", "stock BentoML"


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other. While they are measured no servers but theirs are alive.

    Attributes:
        duet: the rows of Duet; a baseline has the same ones.
        rival: the row of another server.
        raw: the row of the loop without a server, and its batch size.
    """

    name: str
    duet: tuple[str, ...]
    rival: str
    raw: tuple[str, int]


GROUPS = (
    Group(ONE, (BINARY, HIT), BARE, (RAW, 1)),
    Group(MANY, (BINARY_64,), BARE_64, (RAW_64, 64)),
    Group(STOCKED, (BINARY, V2_JSON, NATIVE_JSON, NATIVE_PNG), STOCK, (RAW, 1)),
)


def requests(name: str) -> dict[str, Request]:
    """The request of each row, for a model of this name."""
    one, many = network.digits(1), network.digits(64)
    return {
        BINARY: request.v2_binary(name, one, **NO_STORE),
        V2_JSON: request.v2_json(name, one, **NO_STORE),
        NATIVE_JSON: request.native_json(one, **NO_STORE),
        NATIVE_PNG: request.native_png(one, **NO_STORE),
        HIT: request.v2_binary(name, one),
        BINARY_64: request.v2_binary(name, many, **NO_STORE),
        STOCK: request.bento_json(one),
        BARE: request.v2_binary(name, one),
        BARE_64: request.v2_binary(name, many),
    }


@contextmanager
def alive(group: Group, home: Path, served: Bundle, baseline: Path | None) -> Iterator[list[Case]]:
    """The servers of a group, running; each was asked every request, and answered as the graph does."""
    asked, graph, tag = requests(served.name), served.graph_path("classify"), f"{served.name}:{served.version}"
    with ExitStack() as stack:
        duets: dict[str, Server] = {"": stack.enter_context(server.duet(home, tag))}
        if baseline is not None:
            duets[BASELINE] = stack.enter_context(server.duet(home, tag, PYTHONPATH=str(baseline)))
        start = server.stock_bentoml if group.rival == STOCK else server.bare_uvicorn
        rival = stack.enter_context(start(graph))
        cases = [Case(name + kind, duet, asked[name]) for name in group.duet for kind, duet in duets.items()]
        cases.append(Case(group.rival, rival, asked[group.rival]))
        expected = network.answer(served, network.digits(1))
        for case in cases:
            check(case, expected)
        yield cases


def check(case: Case, expected: tuple[int, float]) -> None:
    """Exit unless the answer is right, and is from the cache only where that is to be measured."""
    case.server.check(case.request, expected)
    headers = case.server.check(case.request, expected)  # the second time a cache would know
    wanted = {"duet": "hit" if case.name.startswith(HIT) else "bypass"}.get(case.server.name, "")
    if not headers.get("x-cache", "").startswith(wanted):
        sys.exit(f"{case.name}: X-Cache is {headers.get('x-cache')!r}, but {wanted!r} is to be measured")


def targets(group: Group, cases: list[Case], served: Bundle, seconds: int) -> Targets:
    """How each row of a group is measured, for `seconds` each."""
    name, batch = group.raw
    found = {case.name: partial(rounds.served, case, seconds) for case in cases}
    return found | {name: partial(rounds.raw, served, batch, seconds / 2)}
