"""The parts of a load test put together: options, what the service serves, records of all processes, the verdict."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from locust import LoadTestShape
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load import objectives, profile, summary, trace
from loadtests.load.outcomes import Outcomes
from loadtests.load.pictures import Pictures, drawn, from_folder, patterns
from loadtests.load.profile import Profile
from loadtests.load.questions import BY_ROUTE, World
from loadtests.load.service import Model, NotAnswered, served
from loadtests.load.verdict import BAD_INPUT, MISSED, Generator, Objective, Verdict, decide

REPORTED_SECONDS = 4.0  # after which the records of every process have arrived: workers report every three seconds
STOP_SECONDS = 15  # in which requests under way may be answered when the run ends


def checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """A type for argparse that refuses what `parse` refuses and keeps the text, which workers are sent."""

    def text(given: str) -> str:
        try:
            parse(given)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return given

    return text


def add_options(parser: LocustArgumentParser) -> None:
    """The options of Duet's load test, beside Locust's own."""
    group = parser.add_argument_group("Duet", "What is sent, how often, and when the run counts as passed.")
    forms = ", ".join(profile.FORMS.values())
    group.add_argument("--rate", default="", type=checked(_optional(profile.parse)), help=f"Requests/s: {forms}")
    group.add_argument("--replay", default="", type=checked(_optional(_trace)), help="Replay a trace (JSON lines)")
    group.add_argument("--user-rate", default=1.0, type=float, help="Requests/s that a user sends (1)")
    group.add_argument("--images", default="", type=checked(_optional(_folder)), help="Send pictures of this folder")
    group.add_argument("--draw-from", default="", help="URL of a service that draws the pictures, if --host draws none")
    group.add_argument("--zipf", default=1.0, type=float, help="Exponent of the popularity of repeated questions (1)")
    group.add_argument("--slo", default=str(objectives.FILE), type=checked(_slo), help="Objectives, in Sloth's format")
    group.add_argument("--report", default="", help="Write report.json and report.html into this folder")


def _optional(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: parse(text) if text else None


def _trace(text: str) -> object:
    return trace.read(Path(text), set(BY_ROUTE))


def _folder(text: str) -> Path:
    if not (path := Path(text)).is_dir():
        raise ValueError(f"{text!r} is no folder")
    return path


def _slo(text: str) -> object:
    return objectives.read(Path(text))


@dataclass
class Session:
    """One run, in one process of it.

    Attributes:
        outcomes: of this process; on a master, and without workers, of all.
        world: what is asked; None until the service said what it serves.
    """

    outcomes: Outcomes = field(default_factory=Outcomes)
    world: World | None = None
    begun: float = 0.0
    lost: list[str] = field(default_factory=list)

    def begin(self, environment: Environment) -> None:
        """Forget the last run, and ask the service what it serves.

        Raises:
            NotAnswered: it does not say.
            ValueError: an option does not fit.
        """
        self.outcomes.clear()
        self.lost.clear()
        self.begun = time.time()
        if self.world is None and not isinstance(environment.runner, MasterRunner):
            self.world = world(environment)

    def objectives(self, environment: Environment) -> list[Objective]:
        options: Any = environment.parsed_options
        return objectives.read(Path(options.slo))

    def generator(self, environment: Environment) -> Generator:
        """What is known against the load generator itself."""
        runner: Any = environment.runner
        troubles = list(self.lost)
        if getattr(runner, "cpu_warning_emitted", False) or getattr(runner, "worker_cpu_warning_emitted", False):
            troubles.append("the load generator used more than 90 % of a core; use workers (--processes)")
        return Generator(self.outcomes.lag(99) if self.outcomes.lags else 0.0, troubles)

    def verdict(self, environment: Environment, seconds: range | None = None) -> Verdict:
        return decide(self.outcomes, self.objectives(environment), self.generator(environment), seconds)


def world(environment: Environment) -> World:
    """What the service serves and the pictures that it gets.

    Raises:
        NotAnswered: it does not say.
        ValueError: the folder of pictures is of no use.
    """
    options: Any = environment.parsed_options
    host = (environment.host or "").rstrip("/")
    if not host:
        raise NotAnswered("--host is missing; give the address of a service, such as http://localhost:3000")
    models = served(host)
    chosen: dict[str, Model] = {}
    for model in models:
        chosen.setdefault(model.task, model)
        if "reconstruct" in model.operations or "encode" in model.operations:
            chosen.setdefault("reconstruction", model)
    folder = Path(options.images) if options.images else None
    pictures: dict[str, Pictures] = {}
    for task, model in chosen.items():
        if task != "generation":
            pictures[task] = _pictures(host, options.draw_from.rstrip("/"), folder, models, model)
    return World(chosen, pictures, zipf=options.zipf)


def _pictures(host: str, source: str, folder: Path | None, models: list[Model], model: Model) -> Pictures:
    """Pictures for a model: the folder's, or those that a generator of the same data draws, or patterns."""
    if folder is not None:
        return from_folder(folder)
    address, known = (source, served(source)) if source else (host, models)
    for other in known:
        if other.task == "generation" and (other.dataset, other.shape) == (model.dataset, model.shape):
            return drawn(address, other, model.shape)
    return patterns(model.shape)


class ProfileShape(LoadTestShape):
    """As many users as the profile's rate needs."""

    def __init__(self, environment: Environment, session: Session, wanted: Profile, user_rate: float) -> None:
        super().__init__()
        self.environment, self.session, self.wanted, self.user_rate = environment, session, wanted, user_rate
        self.results: list[tuple[float, Verdict]] = []  # of each phase that has been judged

    def tick(self) -> tuple[int, float] | None:
        seconds = self.get_run_time()
        self.judge(seconds - REPORTED_SECONDS)
        if self.wanted.search and self.results and self.results[-1][1].status == MISSED:
            return None
        rate = self.wanted.rate(seconds)
        if rate is None:
            return None
        users = max(1, round(rate / self.user_rate))
        return users, users

    def judge(self, seconds: float) -> None:
        """Judge the phases that ended before `seconds`; the first second of each is not counted."""
        while len(self.results) < len(self.wanted.phases) and self.wanted.ends[len(self.results)] <= seconds:
            index = len(self.results)
            begin = int(self.session.begun + (self.wanted.ends[index - 1] if index else 0)) + 2
            end = int(self.session.begun + self.wanted.ends[index])
            verdict = self.session.verdict(self.environment, range(begin, max(end, begin + 1)))
            self.results.append((self.wanted.phases[index].begin, verdict))

    @property
    def capacity(self) -> float:
        """The highest rate whose objectives were met before the first that missed; 0 if none was."""
        found = 0.0
        for rate, verdict in self.results:
            if verdict.status != 0:
                break
            found = rate
        return found


def fail(message: object) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(BAD_INPUT)


def end(environment: Environment, session: Session) -> None:
    """Print the summary, write the report, and set the exit status."""
    if isinstance(environment.runner, WorkerRunner) or environment.runner is None or not session.begun:
        return
    shape = environment.shape_class if isinstance(environment.shape_class, ProfileShape) else None
    verdict = session.verdict(environment)
    if shape is not None:
        shape.judge(float("inf"))
        if shape.wanted.search and verdict.status == MISSED:  # a search ends where an objective is missed
            verdict = Verdict(0 if shape.capacity else MISSED, verdict.results, ())
    environment.process_exit_code = verdict.status
    options: Any = environment.parsed_options
    report = summary.Report(
        host=environment.host or "",
        options={name: getattr(options, name) for name in ("rate", "replay", "user_rate", "images", "zipf", "slo")},
        world=session.world,
        outcomes=session.outcomes,
        verdict=verdict,
        phases=shape.results if shape else [],
        capacity=shape.capacity if shape and shape.wanted.search else None,
    )
    sys.stdout.write(summary.text(report))
    if options.report:
        summary.write(report, Path(options.report))
        sys.stdout.write(f"written: {options.report}/report.json and report.html\n")
