"""Rolling restarts of three replicas behind haproxy and nginx: how many requests fail, and of which kind.

Each replica is replaced by one that is ready before the old one is told to stop, three rolls one after another. The
controls take away what keeps requests from failing: the preStop pause and the drain, or the long keep-alive.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtests.bench import report
from loadtests.bench.network import digits, store
from loadtests.rollout import ports, proxies
from loadtests.rollout.clients import Tally
from loadtests.rollout.replicas import Grace, replicas
from loadtests.rollout.traffic import Mix, Traffic
from services.inference import bundle, registry

SLOTS = ("a", "b", "c", "d")  # a Deployment with maxSurge 1 has one pod more than replicas for a while
CLASSIFIER, GENERATOR = "mnist-cnn", "mnist-gan"
STORED = (CLASSIFIER, GENERATOR, "mnist-scorer")  # with a model of each task, a start adds none to the store


@dataclass(frozen=True)
class Case:
    """How replicas are ended and how long they keep idle connections."""

    name: str
    pre_stop: float = 3.0
    settings: tuple[tuple[str, str], ...] = (("DUET_DRAIN_SECONDS", "5"),)


CASES = (
    Case("as deployed"),
    Case("without drain", pre_stop=0.0, settings=(("DUET_DRAIN_SECONDS", "0"),)),
    Case("keep-alive of 5 s", settings=(("DUET_DRAIN_SECONDS", "5"), ("DUET_KEEP_ALIVE_SECONDS", "5"))),
)


async def run(
    case: Case, names: Sequence[str], home: Path, mix: Mix, *, rolls: int, count: int = 3
) -> list[dict[str, Any]]:
    """Roll `count` replicas under load through each of the proxies; returns what its clients saw, a proxy each."""
    targets = dict(zip(SLOTS, ports.free(1 + count), strict=False))
    fronts = dict(zip(names, ports.free(len(names)), strict=True))
    # A stream has one deadline as a whole, which a busy machine would miss.
    patient = {"DUET_REQUEST_TIMEOUT_MS": "60000"}
    settings = dict(case.settings) | {"DUET_MODELS": f"{CLASSIFIER},{GENERATOR}", "DUET_READINESS": "any"} | patient
    classifier = bundle.load(registry.REFERENCE / CLASSIFIER)
    with tempfile.TemporaryDirectory(prefix="duet-rollout-") as folder, contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(proxies.running(name, port, targets, Path(folder, name)))
            for name, port in fronts.items()
        ]
        async with replicas(count, "allinone", targets, home, *started, **settings) as those:
            traffic = {name: Traffic(port, digits(64), classifier, GENERATOR, mix) for name, port in fronts.items()}
            asking = asyncio.gather(*(one.run() for one in traffic.values()))
            begin = time.monotonic()
            for _ in range(rolls):
                await those.roll(Grace(case.pre_stop))
            seconds = time.monotonic() - begin
            for one in traffic.values():
                one.stop()
            await asking
    about = {"rolls": rolls, "replaced": len(those.statuses), "exit_statuses": sorted(set(those.statuses))}
    return [
        {"case": case.name, "proxy": name, "seconds": round(seconds, 1)} | about | seen(one.tallies)
        for name, one in traffic.items()
    ]


def seen(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """What clients saw, in all and by kind."""
    return {
        "requests": sum(tally.asked for tally in tallies.values()),
        "failed": sum(tally.failures.total() for tally in tallies.values()),
        "by_kind": {
            kind: {"asked": tally.asked, "reopened": tally.reopened, "failures": dict(tally.failures)}
            for kind, tally in tallies.items()
        },
    }


def make_home(home: Path) -> Path:
    """A BENTOML_HOME with the models that are asked."""
    for name in STORED:
        store(registry.REFERENCE / name, home)
    return home


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append", help="default: all")
    parser.add_argument("--proxy", choices=proxies.PROGRAMS, action="append", help="default: both")
    parser.add_argument("--rolls", type=int, default=3, help="how often every replica is replaced; 3")
    options = parser.parse_args()
    mix = Mix(rate=100, busy=8, pollers=20, streams=1, uploads=1) if options.quick else Mix()
    rolls = 1 if options.quick else options.rolls
    about = report.facts(bundle.load(registry.REFERENCE / CLASSIFIER))
    path = options.out / "rollout.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []  # figures add up
    with tempfile.TemporaryDirectory(prefix="duet-rollout-home-") as folder:
        home = make_home(Path(folder))
        for case in CASES:
            if case.name not in (options.case or [case.name]):
                continue
            told = uvloop.run(run(case, options.proxy or proxies.PROGRAMS, home, mix, rolls=rolls))
            runs += told
            for one in told:
                report.out.print(
                    f"{case.name}, {one['proxy']}: {one['failed']} of {one['requests']} requests failed, "
                    f"{one['replaced']} replicas in {one['seconds']:.0f} s"
                )
    report.save(options.out, "rollout", about, {"runs": runs})


if __name__ == "__main__":
    main()
