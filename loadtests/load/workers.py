"""What each worker of a distributed run counted, to the last request, and which workers did not say it.

Locust's master waits half a second for the last reports of its workers. Requests that a service keeps waiting for
longer would be missing, and they are the ones that matter. So here the master tells the workers to stop, and waits
until each has said what it counted, or is known to be dead.
"""

from __future__ import annotations

import time
from typing import Any

import gevent
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.load.session import STOP_SECONDS, Session

STOP, LAST = "duet-stop", "duet-last"  # kinds of messages: to a worker, and its answer


def follow(runner: WorkerRunner, session: Session) -> None:
    """Report, on a worker: now and then with Locust's own reports, and what is left when the run ends."""

    def report(client_id: str, data: dict[str, Any], **_: Any) -> None:
        data["duet"] = session.outcomes.dump()
        session.outcomes.clear()

    def last(**_: Any) -> None:
        runner.send_message(LAST, session.outcomes.dump())
        session.outcomes.clear()

    runner.environment.events.report_to_master.add_listener(report)
    runner.environment.events.test_stop.add_listener(last)
    runner.register_message(STOP, lambda **_: runner.stop())


def lead(runner: MasterRunner, session: Session) -> None:
    """Add up, on a master, and note in the session which workers died or left."""
    begun: set[str] = set()
    ended: set[str] = set()

    def merge(client_id: str, data: dict[str, Any], **_: Any) -> None:
        if "duet" in data:
            session.outcomes.merge(data["duet"])

    def start(**_: Any) -> None:
        begun.clear()
        ended.clear()
        begun.update(client.id for client in runner.clients.all)

    def join(client_id: str, **_: Any) -> None:
        begun.add(client_id)

    def last(environment: Environment, msg: Message) -> None:
        session.outcomes.merge(msg.data)
        if runner.state in ("spawning", "running"):
            session.lost.append(f"worker {msg.node_id} left before the end")
        ended.add(msg.node_id)

    def waiting() -> set[str]:
        alive = {client.id for client in runner.clients.all if client.state != STATE_MISSING}
        return (begun & alive) - ended

    def stop(**_: Any) -> None:
        for client in waiting():
            runner.server.send_to_client(Message(STOP, None, client))
        end = time.monotonic() + STOP_SECONDS + 5
        while waiting() and time.monotonic() < end:
            gevent.sleep(0.05)
        session.lost += [f"worker {client} died" for client in sorted(begun - ended)]

    events = runner.environment.events
    events.worker_report.add_listener(merge)
    events.worker_connect.add_listener(join)
    events.test_start.add_listener(start)
    events.test_stop.add_listener(stop)
    runner.register_message(LAST, last)
