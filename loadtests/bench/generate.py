"""/generate in images a second, by count and format, beside the decode graph alone; and what Metropolis-Hastings costs.

One server core, one load core, wrk, caches bypassed. Every answer is compared with the graph's own images before it is
timed. CPU time an image is the worker's (process_cpu_seconds_total on its /metrics), which other work on the machine
stretches less than the clock. Ratios are taken within a round, of images a second and of images a CPU second, and
medians over the rounds are reported: to the graph run one image at a time, as Duet runs it so that a seed gives the
same bytes in any batch, and to batches of 64.
"""

import base64
import http.client
import io
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table

from loadtests.bench import faults, rawloop, report, server, wrk
from loadtests.bench.overhead import cpu_seconds
from loadtests.bench.request import JSON, NO_STORE, Request
from loadtests.bench.server import Server
from services.inference.bundle import Bundle, load
from services.inference.chain import STEPS, Chains
from services.inference.generator import Generator
from services.inference.noise import latents

FORMATS = ("png", "grid", "array")
COUNTS = {1: 16, 16: 4, 256: 2}  # samples a request: connections, so that the model always has work and the queue room
STREAMED = 512
CHOSEN = 4  # samples of a request that Metropolis-Hastings chooses from 32 draws each
ROUNDS, SECONDS = 3, 3
SEED = 7
ALONE = {"the graph, batch 1": 1, "the graph, batch 64": 64}


@dataclass(frozen=True)
class Rate:
    """Images a second by the clock, and microseconds of CPU time an image."""

    images: float
    cpu: float


@dataclass(frozen=True)
class Case:
    name: str
    request: Request
    connections: int


def numbers(body: bytes, form: str, count: int, shape: tuple[int, int, int]) -> tuple[int, float]:
    """How many images an answer holds, and the mean of their pixels."""
    _, height, width = shape
    if form == "grid":
        sheet = np.asarray(Image.open(io.BytesIO(body)))
        columns = (sheet.shape[1] + 1) // (width + 1)
        cells = [(i // columns * (height + 1), i % columns * (width + 1)) for i in range(count)]
        return count, float(np.mean([sheet[top : top + height, left : left + width] for top, left in cells]))
    images = list(listed(body))
    if isinstance(images[0], str):
        images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))) for image in images]
    return len(images), float(np.mean(images))


def listed(body: bytes) -> Iterator[Any]:
    """The images of an answer in JSON, or in lines of JSON."""
    for line in body.splitlines():
        said = orjson.loads(line)
        yield from said.get("images", [said["image"]] if "image" in said else [])


def expected(served: Bundle, count: int, *, chosen: bool = False) -> tuple[int, float]:
    """The same of what the graphs draw."""
    generator = Generator(served)
    given = {"labels": generator.classes_in_turn(count)} if generator.conditional else {}
    chains = Chains(SEED, range(count))
    for items in chains.draws() if chosen else [list(range(count))]:
        noise = {"latents": latents(SEED, items, generator.latent_size)} | given
        drawn = generator.run("decode", noise)["images"]
        if chosen:
            chains.propose(drawn, generator.run("discriminate", {"images": drawn} | given)["log_ratio"])
    return count, float(np.mean(chains.images if chosen else drawn))


def case(served: Bundle, count: int, form: str, connections: int, **fields: object) -> Case:
    body = orjson.dumps({"model": served.name, "count": count, "format": form, "seed": SEED} | fields)
    shape = served.manifest.image.shape
    read = partial(numbers, form=form, count=count, shape=shape)
    asked = Request("/generate", JSON | NO_STORE, body, count, lambda answer, _: read(answer))
    wishes = ["streamed" if name == "stream" else str(value) for name, value in fields.items()]
    return Case(" ".join([str(count), form, *wishes]), asked, connections)


def cases(served: Bundle) -> list[Case]:
    chosen = [case(served, count, form, COUNTS[count]) for form in FORMATS for count in COUNTS]
    chosen += [case(served, STREAMED, form, 1, stream=True) for form in ("png", "array")]
    if "discriminate" in served.manifest.graphs:
        chosen += [case(served, CHOSEN, "png", 1, sampler="metropolis-hastings")]
    return chosen


def serve(home: Path, *models: Bundle) -> AbstractContextManager[Server]:
    tags = ",".join(f"{served.name}:{served.version}" for served in models)
    command = [sys.executable, "-m", "training", "serve", "generation", "--port", "{port}", "--models", tags]
    return server.running("duet", command, BENTOML_HOME=str(home.absolute()), DUET_DRAIN_SECONDS="0")


def measure(duet: Server, served: Bundle, chosen: list[Case], seconds: int) -> dict[str, Rate]:
    """One round."""
    found = {}
    for name, batch in ALONE.items():
        run = rawloop.measure(served, batch, seconds / 2, "decode")
        found[name] = Rate(batch / run.mean, 1e6 * run.cpu / batch)
    metrics = http.client.HTTPConnection("127.0.0.1", duet.port, timeout=30)
    for each in chosen:
        cpu, images = cpu_seconds(metrics), drawn(metrics)
        load = wrk.load(duet, each.request, connections=each.connections, seconds=seconds)
        cpu, images = cpu_seconds(metrics) - cpu, drawn(metrics) - images
        draws = STEPS if "metropolis" in each.name else 1
        found[each.name] = Rate(each.request.items * load.requests_per_second, 1e6 * cpu * draws / images)
    metrics.close()
    return found


def drawn(connection: http.client.HTTPConnection) -> float:
    """Images that the server has decoded so far: wrk ends in the middle of requests, which took CPU time too."""
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("duet_generated_samples_total{"))


def summary(rounds: list[dict[str, Rate]]) -> list[dict[str, Any]]:
    """Of each case the medians over the rounds, and of the ratios within a round."""

    def of(name: str) -> dict[str, Any]:
        def median(value: Callable[[dict[str, Rate]], float]) -> float:
            return statistics.median(map(value, rounds))

        return {
            "case": name,
            "images_per_second": median(lambda each: each[name].images),
            "cpu_us": median(lambda each: each[name].cpu),
            "ratios": {
                alone: median(lambda each, alone=alone: each[name].images / each[alone].images) for alone in ALONE
            },
            "cpu_ratios": {
                alone: median(lambda each, alone=alone: each[alone].cpu / each[name].cpu) for alone in ALONE
            },
        }

    return [of(name) for name in rounds[0]]


def figure(found: dict[str, list[dict[str, Any]]]) -> Figure:
    picture = Figure(figsize=(9, 4 * len(found)), layout="constrained")
    for axes, (name, rows) in zip(picture.subplots(len(found), squeeze=False)[:, 0], found.items(), strict=True):
        colours = ["tab:grey" if row["case"] in ALONE else "tab:blue" for row in rows]
        bars = axes.barh([row["case"] for row in rows], [row["images_per_second"] for row in rows], color=colours)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.set(xlabel="images per second, one core", title=name, xscale="log")
        axes.invert_yaxis()
        axes.margins(x=0.15)
    return picture


def show(name: str, rows: list[dict[str, Any]]) -> None:
    table = Table("samples a request", "images/s", *(f"/ {alone}" for alone in ALONE), "CPU µs", "/ 1", "/ 64")
    table.title = f"{name}, /generate, one server core, wrk"
    for row in rows:
        by_clock, by_cpu = ([f"{ratio:.2f}" for ratio in row[kind].values()] for kind in ("ratios", "cpu_ratios"))
        table.add_row(row["case"], f"{row['images_per_second']:,.0f}", *by_clock, f"{row['cpu_us']:,.0f}", *by_cpu)
    report.out.print(table)


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each measurement")
    options = parser.parse_args()
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    wrk_version = wrk.require()
    home, vae = faults.generator(options.home)
    gans = sorted(home.glob("models/*-gan/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    models = [vae, *(load(path.parent) for path in gans[-1:])]
    models = models[-1:] if options.quick else models
    about = report.facts(models[0], "decode")
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": COUNTS, "rounds": rounds, "seconds": seconds, "models": [each.digest for each in models]}
    report.show(about)
    found = {}
    with serve(home, *models) as duet:
        for served in models:
            chosen = cases(served)
            for each in chosen:
                wanted = expected(served, each.request.items, chosen="metropolis" in each.name)
                duet.check(each.request, wanted)
                if not options.quick:
                    wrk.load(duet, each.request, connections=each.connections, seconds=1)
            done = [measure(duet, served, chosen, seconds) for _ in range(rounds)]
            found[served.name] = summary(done)
            show(served.name, found[served.name])
    report.save(options.out, "generate", about, {"by_model": found}, figure(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
