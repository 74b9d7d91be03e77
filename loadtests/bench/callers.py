"""Closed-loop callers in a process of their own, so that what they measure is not their own Python."""

import http.client
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A fork of a process with threads may hang, so another process forks; it imports what programs need once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "loadtests.bench.report", "services.inference.bundle"])


@dataclass(frozen=True)
class Ask:
    """Requests that callers send in turn; no body: a GET."""

    path: str
    bodies: Sequence[bytes]
    headers: dict[str, str]


@dataclass(frozen=True)
class Heard:
    """What callers got: answers by status, and milliseconds of those with 200."""

    seconds: float
    statuses: dict[str, int]
    milliseconds: np.ndarray

    @property
    def rate(self) -> float:
        """Answers with 200 a second."""
        return len(self.milliseconds) / self.seconds

    def at(self, percent: float) -> float:
        """A percentile, in milliseconds."""
        return float(np.percentile(self.milliseconds, percent)) if len(self.milliseconds) else float("nan")


class Callers:
    """Callers that begin at once and end after `seconds`; `pause` is between two requests of one of them."""

    def __init__(self, port: int, ask: Ask, seconds: float, callers: int = 1, pause: float = 0.0) -> None:
        self._seconds = seconds
        self._heard = CONTEXT.Queue()
        arguments = (port, ask, seconds, callers, pause, self._heard)
        self._process = CONTEXT.Process(target=_call, args=arguments, daemon=True)
        self._process.start()
        assert self._heard.get(timeout=60) == "begun"

    def heard(self) -> Heard:
        answers = self._heard.get(timeout=self._seconds + 120)
        self._process.join()
        good = [1000 * took for status, took in answers if status == "200"]
        return Heard(self._seconds, dict(Counter(status for status, _ in answers)), np.array(good))


def _call(
    port: int, ask: Ask, seconds: float, callers: int, pause: float, heard: "multiprocessing.Queue[object]"
) -> None:
    answers: list[tuple[str, float]] = []
    heard.put("begun")
    end = time.monotonic() + seconds

    def one(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        turn = number
        while time.monotonic() < end:
            begin = time.perf_counter()
            try:
                body = ask.bodies[turn % len(ask.bodies)] if ask.bodies else None
                connection.request("GET" if body is None else "POST", ask.path, body, ask.headers)
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException) as error:  # refused while the body was sent
                status = type(error).__name__
                connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            answers.append((status, time.perf_counter() - begin))
            turn += 1
            time.sleep(pause)
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard.put(answers)
