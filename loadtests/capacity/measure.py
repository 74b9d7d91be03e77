"""Measure costs, and runs of a real service that predictions are compared with: about three minutes on a quiet machine.

    python -m loadtests.capacity measure

The server has one core and the load another. Costs come from closed loops, runs are open loops at moments drawn
beforehand: five loads, a spike, popular images with the cache, and the kill of one replica of three behind haproxy.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.progress import Progress

from loadtests.bench import cores, network, openloop, report, server
from loadtests.bench.openloop import Load
from loadtests.bench.server import Server
from loadtests.capacity import calibrate, quiet, runs, target
from loadtests.capacity.costs import Costs
from loadtests.capacity.runs import Run, Seen
from services.inference.bundle import Bundle

NAME = "capacity_measured"
DEADLINE = 0.1  # seconds
ITEMS = (1, 16)  # images a request: on the event loop, and in the compute thread
_fresh = count(0, runs.POPULAR.images)  # the first image of each run with the cache
KILL, NOTICED = 2.0, 3.0  # seconds from the start


def measure(home: Path | None, seconds: float, out: Path) -> None:
    """Measure everything and write it as JSON.

    Args:
        home: BENTOML_HOME of the models; None: some that are trained here.
        seconds: of each run.
        out: a folder.
    """
    cores.require()
    home, served = network.ready(home)
    home = home.absolute()  # replicas run elsewhere
    about = report.facts(served)
    report.show(about)
    model = calibrate.computing(served, seconds / 30)
    costs: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    done: list[dict[str, Any]] = []
    with Progress(console=report.out) as progress:
        bar = progress.add_task("measuring", total=len(ITEMS) * (len(runs.LEVELS) + 3) + 1)
        found: dict[int, Costs] = {}
        for items in ITEMS:
            os.sched_setaffinity(0, {cores.LOAD})
            with server.duet(home, f"{served.name}:{served.version}") as duet:
                item = target.figure(duet.port, "duet_item_seconds")
                calibrate.check(duet, served, items)
                found[items], sources[str(items)] = calibrate.calibrate(
                    duet, served, items, max(seconds / 2.5, 0.3), DEADLINE, item, model
                )
                progress.advance(bar)
                for run in planned(items, sources[str(items)]["capacity"], seconds):
                    done.append(made(run, observed(run, duet, served)))
                    progress.advance(bar)
        raw = target.ask(1, served.name, DEADLINE).raw("duet")
        run = Run("killed", 1, runs.KILLED, 0.0, seconds, DEADLINE, seed=7)

        def draw(capacity: float) -> np.ndarray:
            return replace(run, rate=runs.KILLED * capacity).moments()

        quiet.wait()  # replicas come and go, so what others use is not known
        seen = uvloop.run(target.kill_one(home, f"{served.name}:{served.version}", raw, draw, KILL, NOTICED))
        rate = runs.KILLED / seen.alone.each
        done.append(made(replace(run, rate=rate, killed=seen.killed, noticed=seen.noticed), Seen.of(seen.record)))
        proxy = max(0.0, seen.alone.each - 1 / sources["1"]["capacity"])
        progress.advance(bar)
    for items, one in found.items():
        costs[str(items)] = replace(one, proxy=proxy).as_json()
    report.save(out, NAME, about | {"deadline_seconds": DEADLINE}, {"costs": costs, "loops": sources, "runs": done})


def planned(items: int, capacity: float, seconds: float) -> list[Run]:
    """The runs on one replica."""
    steady = [
        Run("steady", items, level, level * capacity, seconds, DEADLINE, seed=seed)
        for seed, level in enumerate(runs.LEVELS, start=1)
    ]
    spike = Run("spike", items, runs.SPIKE[0], runs.SPIKE[0] * capacity, seconds, DEADLINE, seed=6)
    return [*steady, spike, Run("cached", items, runs.CACHED, runs.CACHED * capacity, seconds, DEADLINE, seed=8)]


def observed(run: Run, server: Server, served: Bundle) -> Seen:
    """What a real service did with a run's requests; with the cache, a try asks for images that none before did."""
    images, moments = run.images(), run.moments()
    pids = [server.process.pid]

    def measure() -> tuple[Seen, float]:
        load: Load
        if images is None:
            load = Load(server.port, target.ask(run.items, served.name, run.deadline).raw("duet"))
        else:
            first = next(_fresh)
            bodies = {
                image: target.ask(run.items, served.name, run.deadline, cached=True, image=first + image).raw("duet")
                for image in set(images.tolist())
            }
            load = target.Varied(server.port, [bodies[image] for image in images.tolist()])
        used = target.cpu_seconds(pids)
        answers = uvloop.run(openloop.send(load, moments))
        late = float(np.percentile(np.subtract(answers.sent, answers.due), 99))
        return Seen.of(target.record(answers), late), target.cpu_seconds(pids) - used

    found = quiet.least_disturbed(measure)
    return replace(found.result, others=found.others)


def made(run: Run, seen: Seen) -> dict[str, Any]:
    """One entry of the results."""
    return {"run": vars(run), "measured": seen.as_json()}
