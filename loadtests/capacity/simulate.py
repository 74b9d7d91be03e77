"""Requests through simulated replicas whose load does not depend on their state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loadtests.capacity.costs import Costs
from loadtests.capacity.loop import virtual_time
from loadtests.capacity.pod import Pod, Record

CONNECT_REFUSED = 503  # what a proxy answers for a replica that is gone


def one_pod(
    costs: Costs,
    due: np.ndarray,
    *,
    deadline: float | None = None,
    images: np.ndarray | None = None,
    speed: float = 1.0,
) -> Record:
    """What becomes of requests to one replica on a core of its own.

    Args:
        costs: measured times.
        due: seconds from the start, ascending.
        deadline: seconds that clients wait.
        images: what is asked, by number, one for each moment; None: no request uses the cache.
        speed: of the core, relative to that of the costs.
    """
    with virtual_time():
        pod = Pod(costs, deadline=deadline, cached=images is not None, speed=speed)
        begin = pod.loop.now
        asked = [0] * len(due) if images is None else images.tolist()
        for moment, image in zip((due + begin).tolist(), asked, strict=True):
            pod.ask(moment, image)
        pod.run()
    record = pod.record
    return Record(record.due - begin, record.received - begin, record.status)


def shared_core(
    costs: Costs,
    due: np.ndarray,
    *,
    count: int,
    deadline: float | None = None,
    killed: float = math.inf,
    noticed: float = math.inf,
) -> Record:
    """What becomes of requests that a proxy deals in turn to replicas that share one core with it.

    Args:
        costs: measured times; compute must be on the event loops.
        due: seconds from the start, ascending.
        count: replicas.
        deadline: seconds that clients wait.
        killed: when the first replica is killed. What it had not answered is lost.
        noticed: when the proxy stops sending it requests; those that it sends meanwhile are refused.
    """
    entries: list[tuple[float, float, int]] = []
    with virtual_time():
        pods = [Pod(costs, deadline=deadline, proxied=True) for _ in range(count)]
        begin = max(pod.loop.now for pod in pods)
        for pod in pods:
            pod.run(begin)
        for turn, moment in enumerate(due.tolist()):
            known = pods if moment < noticed else pods[1:]
            chosen = known[turn % len(known)]
            if chosen is pods[0] and moment >= killed:
                entries.append((moment, moment + costs.network + costs.proxy, CONNECT_REFUSED))
            else:
                chosen.ask(begin + moment)
        lost = _take_turns(pods, begin + killed)
    for pod in pods:
        entries += [(at - begin, received - begin, status) for at, received, status in pod.entries]
    entries += [(killed, killed, 0)] * lost
    return Record.of(entries)


def _take_turns(pods: Sequence[Pod], killed: float) -> int:
    """Let the replica go on whose next event is first, until all have answered; returns what was lost in the kill."""
    core, lost, running = 0.0, 0, list(pods)
    while any(pod.open for pod in running):
        pod = min(running, key=lambda one: one.loop.next_event)
        if max(core, pod.loop.next_event) >= killed and pods[0] in running:
            lost += pods[0].kill()
            running = list(pods[1:])
            continue
        pod.loop.now = max(pod.loop.now, core)
        pod.loop.step()
        core = max(core, pod.loop.now)
    return lost
