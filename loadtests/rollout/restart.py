"""Rolling restarts of three replicas behind haproxy and nginx: how many requests fail, and of which kind.

Each replica is replaced by one that is ready before the old one is told to stop, three rolls one after another. The
controls take away what keeps requests from failing: the preStop pause and the drain, or the long keep-alive.
"""

import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtests.bench import report
from loadtests.bench.network import digits, store
from loadtests.rollout import ports, proxies
from loadtests.rollout.replicas import Grace, replicas
from loadtests.rollout.traffic import Mix, Traffic
from services.inference import bundle, registry

SLOTS = ("a", "b", "c", "d")  # a Deployment with maxSurge 1 has one pod more than replicas for a while
CLASSIFIER, GENERATOR = "mnist-cnn", "mnist-gan"


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


async def run(case: Case, proxy: str, home: Path, mix: Mix, *, rolls: int, count: int = 3) -> dict[str, Any]:
    """Roll `count` replicas under load; returns what the clients saw."""
    port, *targets = ports.free(2 + count)
    slots = dict(zip(SLOTS, targets, strict=False))
    with (
        tempfile.TemporaryDirectory(prefix="duet-rollout-") as folder,
        proxies.running(proxy, port, slots, Path(folder) / "proxy") as front,
    ):
        settings = dict(case.settings) | {"DUET_MODELS": f"{CLASSIFIER},{GENERATOR}", "DUET_READINESS": "any"}
        async with replicas(count, "allinone", slots, home, front, **settings) as those:
            reference = bundle.load(registry.REFERENCE / CLASSIFIER)
            traffic = Traffic(port, digits(64), reference, GENERATOR, mix)
            asking = asyncio.create_task(traffic.run())
            begin = time.monotonic()
            for _ in range(rolls):
                await those.roll(Grace(case.pre_stop))
            seconds = time.monotonic() - begin
            traffic.stop()
            await asking
    return {
        "case": case.name,
        "proxy": proxy,
        "rolls": rolls,
        "replicas_replaced": len(those.statuses),
        "exit_statuses": sorted(set(those.statuses)),
        "seconds": round(seconds, 1),
        "requests": sum(tally.asked for tally in traffic.tallies.values()),
        "failed": sum(tally.failures.total() for tally in traffic.tallies.values()),
        "by_kind": {kind: asdict(tally) for kind, tally in traffic.tallies.items()},
    }


def make_home(home: Path) -> Path:
    """A BENTOML_HOME with the models that are asked."""
    for name in (CLASSIFIER, GENERATOR):
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
    runs = json.loads(path.read_text())["runs"] if path.exists() else []  # of the cases that are not run now
    with tempfile.TemporaryDirectory(prefix="duet-rollout-home-") as folder:
        home = make_home(Path(folder))
        for case in CASES:
            for proxy in options.proxy or proxies.PROGRAMS:
                if case.name in (options.case or [case.name]):
                    told = uvloop.run(run(case, proxy, home, mix, rolls=rolls))
                    runs = [old for old in runs if (old["case"], old["proxy"]) != (case.name, proxy)] + [told]
                    report.out.print(
                        f"{case.name}, {proxy}: {told['failed']} of {told['requests']} requests failed, "
                        f"{told['replicas_replaced']} replicas in {told['seconds']:.0f} s"
                    )
    report.save(options.out, "rollout", about, {"runs": runs})


if __name__ == "__main__":
    main()
