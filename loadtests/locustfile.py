"""Load on the services of Duet, with pictures of the kind that they serve, and a verdict.

The run begins with questions to the service: which models it serves, for pictures of which size, of which classes. Its
pictures are those of `--images FOLDER`, or samples of a generator that is served there or at `--draw-from URL`.

    HOST="--host http://localhost:3000"
    locust -f loadtests/locustfile.py $HOST                                         a page on port 8089
    locust -f loadtests/locustfile.py $HOST --headless -u 200 -r 200 -t 60s         200 requests/s, and a verdict
    locust -f loadtests/locustfile.py $HOST --headless --rate ramp:10:200:60     a rate that rises
    locust -f loadtests/locustfile.py $HOST --headless --rate search:50:1000:50:10 ClassificationUser   capacity
    locust -f loadtests/locustfile.py $HOST --headless --replay trace.jsonl         requests as they were recorded
    locust -f loadtests/locustfile.py $HOST --tags repeated                         what a cache may answer
    locust -f loadtests/locustfile.py $HOST --tags fresh                            what no cache can answer

Requests are due at random moments, as those of many independent people are (a Poisson process), and leave when they are
due, whether or not the ones before have been answered. Latencies count from that moment.

Exit status: 0 the objectives were met, 1 missed, 2 bad input, 3 the run is invalid, because this side was too slow or a
worker died.
"""

import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.lock import BoundedSemaphore
from geventhttpclient import HTTPClient
from geventhttpclient._parser import HTTPParseError
from locust import User, constant, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import CatchResponseError, StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load import questions, session, trace, workers
from loadtests.load.outcomes import Outcome, of_status
from loadtests.load.profile import parse
from loadtests.load.questions import BY_ROUTE, Question, World
from loadtests.load.service import NotAnswered
from loadtests.load.session import STOP_SECONDS, Session, add_options, end, fail

CONNECTIONS = 1024  # of a process; what is due beyond waits for one, and its clock runs
LEAD = 0.02  # seconds before a request is due in which it is prepared, so that this is no part of its latency
TICK = 0.001  # seconds to which the event loop rounds up
SESSION = Session()
FREE = BoundedSemaphore(CONNECTIONS)
V2 = questions.V2
Ask = Callable[[World], Question]


def asks(route: str, weight: int, kind: str, ask: Ask) -> Callable[["DuetUser"], None]:
    """A task that sends a question when it is due, and does not wait for the answer; `kind` is its tag."""

    def begin(user: "DuetUser") -> None:
        user.begin(route, ask)

    tagged: Callable[[DuetUser], None] = task(weight)(tag(kind)(begin))
    return tagged


def wait_until(due: float) -> None:
    """Sleep until a monotonic time, more precisely than the event loop does."""
    gevent.sleep(max(0.0, due - time.monotonic() - TICK / 2))
    while time.monotonic() < due:
        gevent.sleep(0)


@cache
def client_of(host: str) -> HTTPClient:
    """The connections of this process to a host. Locust's own client takes twice as much processor time a request."""
    return HTTPClient.from_url(host, concurrency=CONNECTIONS, connection_timeout=10, network_timeout=60, insecure=True)


class DuetUser(User):
    """One of many independent senders; each is a Poisson process of its own.

    Attributes:
        needs: the tasks, one of which the service must serve.
    """

    abstract = True
    needs: tuple[str, ...] = ()

    def __init__(self, environment: Environment) -> None:
        self.host = (environment.host or self.host or "").rstrip("/")  # else the routes begin with two slashes
        super().__init__(environment)
        self._client, self._base = client_of(self.host), urlsplit(self.host).path
        options: Any = environment.parsed_options
        self._rate = options.user_rate
        self._under_way: dict[gevent.Greenlet, tuple[str, float]] = {}
        self._sent: set[gevent.Greenlet] = set()
        self._due = time.monotonic() + random.expovariate(self._rate)

    def on_start(self) -> None:
        gevent.sleep(max(0.0, self._due - LEAD - time.monotonic()))

    def wait_time(self) -> float:
        """Until the next request has to be prepared."""
        self._due += random.expovariate(self._rate)
        return max(0.0, self._due - LEAD - time.monotonic())

    def begin(self, route: str, ask: Ask) -> None:
        """Prepare a question and send it when it is due; the answer is awaited elsewhere."""
        greenlet = gevent.Greenlet(self._ask, ask, self._due)
        self._under_way[greenlet] = (route, self._due)
        greenlet.link(self._ended)
        greenlet.start()

    def _ended(self, greenlet: gevent.Greenlet) -> None:
        self._under_way.pop(greenlet, None)
        self._sent.discard(greenlet)

    def _ask(self, ask: Ask, due: float) -> None:
        assert SESSION.world is not None
        question = ask(SESSION.world)
        wait_until(due)
        SESSION.outcomes.add_lag(max(0.0, time.monotonic() - due))
        with FREE:
            self._send(question, due)

    def _send(self, question: Question, due: float) -> None:
        self._sent.add(gevent.getcurrent())
        status, content, failure = 0, b"", None
        begun = time.time()
        try:
            answer = self._client.request("POST", self._base + question.path, question.body, question.headers)
            content = bytes(answer.read())
            status = answer.status_code
        except (OSError, HTTPParseError) as error:
            failure = f"{type(error).__name__} {error}"
        seconds = time.monotonic() - due
        outcome = of_status(status)
        if outcome is Outcome.right:
            try:
                question.check(content)
            except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
                outcome, failure = Outcome.wrong, f"{type(error).__name__} {error}"
        elif status:
            failure = f"{status} {content[:300].decode(errors='replace')}"
        SESSION.outcomes.add(question.route, outcome, time.time() - seconds, seconds)
        self.environment.events.request.fire(
            request_type="POST",
            name=question.route,
            response_time=1000 * seconds,
            response_length=len(content),
            response=None,
            context={},
            exception=None if failure is None else CatchResponseError(f"{question.route}: {failure}"[:300]),
            start_time=begun,
            url=question.path,
        )

    def on_stop(self) -> None:
        """Wait for answers; count what has none, and what could not be sent."""
        gevent.joinall(list(self._under_way), timeout=STOP_SECONDS)
        now = time.monotonic()
        for greenlet, (route, due) in list(self._under_way.items()):
            outcome = Outcome.late if greenlet in self._sent else Outcome.unsent
            greenlet.kill(block=False)
            SESSION.outcomes.add(route, outcome, time.time() - (now - due), now - due)


class ClassificationUser(DuetUser):
    """One picture at a time, again and again; and batches that were never sent before."""

    needs = ("classification",)
    again = asks("/classify", 3, "repeated", lambda world: questions.classify(world, 1, world.popular()))
    batch = asks("/classify", 1, "fresh", lambda world: questions.classify(world, 8, None))


class GenerationUser(DuetUser):
    """Samples of known seeds, again and again; grids and paths of new ones."""

    needs = ("generation",)
    again = asks("/generate", 3, "repeated", lambda world: questions.generate(world, 4, world.popular()))
    grid = asks("/generate", 1, "fresh", lambda world: questions.grid(world, 1, None))
    path = asks("/interpolate", 1, "fresh", lambda world: questions.interpolate(world, 4, None))


class ReconstructionUser(DuetUser):
    """Pictures encoded and decoded: one at a time again and again, and batches that were never sent before."""

    needs = ("reconstruction",)
    again = asks("/reconstruct", 3, "repeated", lambda world: questions.reconstruct(world, 1, world.popular()))
    batch = asks("/reconstruct", 1, "fresh", lambda world: questions.reconstruct(world, 8, None))


class AnomalyUser(DuetUser):
    """Scores of one picture, and of batches with heat maps."""

    needs = ("anomaly",)
    again = asks("/score", 3, "repeated", lambda world: questions.score(world, 1, world.popular()))
    batch = asks("/score", 1, "fresh", lambda world: questions.score(world, 8, None))


class V2User(DuetUser):
    """The Open Inference Protocol V2, with binary tensors, to the classifier or the scorer."""

    needs = ("classification", "anomaly")
    again = asks(V2, 3, "repeated", lambda world: infer(world, 1, world.popular()))
    batch = asks(V2, 1, "fresh", lambda world: infer(world, 8, None))


def infer(world: World, items: int, again: int | None) -> Question:
    tasks = [name for name in V2User.needs if name in world.models]
    return questions.infer(random.choice(tasks), world, items, again)


class ReplayUser(DuetUser):
    """The one user of `--replay`: it sends the requests of a trace at their times."""

    needs = tuple(task for task, _ in BY_ROUTE.values())
    wait_time = constant(0)

    def on_start(self) -> None:
        pass

    @task
    def replay(self) -> None:
        options: Any = self.environment.parsed_options
        assert SESSION.world is not None
        begin = time.monotonic() + LEAD
        for arrival in trace.read(Path(options.replay), set(BY_ROUTE)):
            needed, build = BY_ROUTE[arrival.route]
            if needed not in SESSION.world.models:
                fail(f"--replay {options.replay}: it has {arrival.route}, and no model for {needed} is served")
            self._due = begin + arrival.at
            gevent.sleep(max(0.0, self._due - LEAD - time.monotonic()))
            again = SESSION.world.popular()
            self.begin(arrival.route, lambda world, b=build, n=arrival.items, k=again: b(world, n, k))
        self.on_stop()
        gevent.spawn(self.environment.runner.quit)
        raise StopUser


@events.init_command_line_parser.add_listener
def _(parser: LocustArgumentParser) -> None:
    add_options(parser)


@events.init.add_listener
def _(environment: Environment, **_: Any) -> None:
    """Choose the users, and ask the service before anything is started."""
    options: Any = environment.parsed_options
    environment.stop_timeout = max(environment.stop_timeout or 0, STOP_SECONDS + 1)
    environment.events.quitting.add_listener(_quitting)
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        workers.follow(runner, SESSION)
        return
    if not 0 < options.user_rate <= 1000:
        fail(f"--user-rate {options.user_rate}: it must be above 0 and at most 1000")
    if not 0 <= options.zipf <= 5:
        fail(f"--zipf {options.zipf}: it must be from 0 to 5")
    if options.replay and isinstance(runner, MasterRunner):
        fail("--replay: a trace is replayed by one process; leave out --master and --processes")
    named = set(options.user_classes or ())
    if options.replay:
        environment.user_classes = [ReplayUser]
        options.num_users = options.spawn_rate = 1
    else:
        environment.user_classes = [user for user in environment.user_classes if user is not ReplayUser]
    if isinstance(runner, MasterRunner):
        workers.lead(runner, SESSION)
    if options.rate and not options.replay:
        environment.shape_class = session.ProfileShape(environment, SESSION, parse(options.rate), options.user_rate)
        environment.shape_class.runner = runner
    if environment.host or options.headless:
        try:
            SESSION.begin(environment)
            world = SESSION.world
        except (NotAnswered, ValueError) as error:
            fail(error)
        if world is not None:
            _choose_users(environment, world, named)
    SESSION.begun = 0.0


def _choose_users(environment: Environment, world: World, named: set[str]) -> None:
    """Leave out the users whose models are not served."""
    fit = [user for user in environment.user_classes if set(user.needs) & world.models.keys()]  # type: ignore[attr-defined]
    for user in environment.user_classes:
        if user not in fit and user.__name__ in named:
            fail(f"{user.__name__}: {environment.host} serves no model for {' or '.join(user.needs)}")  # type: ignore[attr-defined]
    environment.user_classes = fit


@events.test_start.add_listener
def _(environment: Environment, **_: Any) -> None:
    try:
        SESSION.begin(environment)
    except (NotAnswered, ValueError) as error:  # on a worker, or an address that was typed into the page
        environment.process_exit_code = 2
        environment.runner.quit()
        fail(error)


def _quitting(environment: Environment, **_: Any) -> None:
    runner: Any = environment.runner
    if (
        runner is not None
        and runner.state not in ("ready", "stopped", "cleanup")
        and not isinstance(runner, WorkerRunner)
    ):
        runner.stop()
    end(environment, SESSION)
