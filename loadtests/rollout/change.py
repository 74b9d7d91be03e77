"""A model change under load, phase by phase: expand, shift, promote, roll back, contract; and canaries to refuse.

haproxy stands in for the HTTPRoute: it draws for each request, by the weight that the overlay renders. The commands of
`deploy.rollout` change the overlay and compare the pods, as an operator lets them.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
import yaml
from PIL import Image

from loadtests.bench import cores, report
from loadtests.rollout import candidates, overlay, ports, proxies
from loadtests.rollout.candidates import NAME
from loadtests.rollout.overlay import ROUTE
from loadtests.rollout.proxies import HAProxy
from loadtests.rollout.replicas import Grace, Replicas, replicas
from loadtests.rollout.visitors import Visitors
from services.inference.bundle import Bundle
from training.data.digits import load_digits

GRACE = Grace(pre_stop=2.0)
Z = 3.2905  # of a 99.9 % interval
WRONG = ("slow", "trained on permuted labels", "trained on renamed classes")


@dataclass(frozen=True)
class Sizes:
    """How much traffic there is.

    Attributes:
        rate: requests a second, about.
        count: answers without a version, at each weight.
        compared: answers that `promote` compares.
        refuse_seconds: that it counts the answers of a canary which must not be promoted.
        pictures: that both versions classify.
        weights: of the canary, in percent.
        wrong: canaries that must not be promoted.
    """

    rate: float = 400.0
    count: int = 4000
    compared: int = 16_000
    refuse_seconds: float = 10.0
    pictures: int = 300
    weights: tuple[int, ...] = (1, 10, 50)
    wrong: tuple[str, ...] = WRONG


@dataclass
class Change:
    """A change under way: the overlay, the gateway, the pods and the clients."""

    overlay: Path
    gateway: HAProxy
    stable: Replicas
    canary: Replicas
    visitors: Visitors
    pictures: Path
    events: list[dict[str, Any]] = field(default_factory=list)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run `python -m deploy.rollout`, then give the gateway the weight that the overlay renders."""
        call = [sys.executable, "-m", "deploy.rollout", *arguments]
        pipe = asyncio.subprocess.PIPE
        run = await asyncio.create_subprocess_exec(*call, cwd=cores.ROOT, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        told, _ = await run.communicate()
        self.gateway.weigh(await rendered_weight(self.overlay))
        return run.returncode or 0, told.decode()

    async def move(self, command: str, *arguments: str) -> None:
        status, told = await self.command(command, ROUTE, *arguments, "--overlay", str(self.overlay))
        if status:
            sys.exit(told)

    async def shares(self, percent: int, count: int, new: Bundle) -> None:
        """Shift, and count who answers requests without a version."""
        await self.move("shift", str(percent))
        await asyncio.sleep(0.5)  # what is under way
        before = Counter(self.visitors.answered)
        while (answered := self.visitors.answered - before).total() < count:  # noqa: ASYNC110  # clients set no events
            await asyncio.sleep(0.05)
        share, total = percent / 100, answered.total()
        half = Z * (share * (1 - share) / total) ** 0.5
        found = answered[new.digest] / total
        self.events.append(
            {
                "weight": percent,
                "answers": total,
                "of_the_canary": answered[new.digest],
                "share": found,
                "interval": [share - half, share + half],
                "within": abs(found - share) <= half,
            }
        )

    async def promote(self, old: Bundle, new: Bundle, seconds: float, *, pictures: bool) -> tuple[int, str]:
        tags = ("--from", f"{NAME}:{old.version}", "--to", f"{NAME}:{new.version}")
        pods = ("--stable", *self.stable.urls, "--canary", *self.canary.urls, "--seconds", str(seconds))
        looked = ("--pictures", str(self.pictures)) if pictures else ()
        return await self.command("promote", ROUTE, "--overlay", str(self.overlay), *tags, *pods, *looked)

    async def put(self, *versions: Bundle) -> None:
        """Let the canary serve these versions, the first one as the default."""
        if self.canary.running:
            await self.canary.roll(GRACE, **serving(*versions))
        else:
            self.canary.settings = {**self.canary.settings, **serving(*versions)}
            await self.canary.start("c")


async def rendered_weight(overlay: Path) -> int:
    """The canary's weight in the HTTPRoute, as `kubectl kustomize` renders it."""
    pipe = asyncio.subprocess.PIPE
    run = await asyncio.create_subprocess_exec("kubectl", "kustomize", str(overlay), stdout=pipe)
    text, _ = await run.communicate()
    for document in yaml.safe_load_all(text):
        if document["kind"] == "HTTPRoute" and document["metadata"]["name"] == ROUTE:
            backends = {one["name"]: one["weight"] for rule in document["spec"]["rules"] for one in rule["backendRefs"]}
            return int(backends[f"{ROUTE}-canary"])
    sys.exit(f"{overlay}: kubectl renders no HTTPRoute {ROUTE}")


def serving(default: Bundle, *others: Bundle) -> dict[str, str]:
    """Settings of pods that serve these versions; the first answers who names none."""
    tags = [f"{NAME}:{one.version}" for one in (default, *others)]
    return {"DUET_MODELS": ",".join(tags), "DUET_DEFAULT_MODELS": tags[0]}


async def refuse(change: Change, what: str, made: dict[str, Bundle], sizes: Sizes) -> dict[str, Any]:
    """Try to promote a canary that must not be; returns what the command says, with pictures and without."""
    old, wrong = made["old"], made[what]
    await change.put(wrong, old)
    await change.move("shift", "50")
    found: dict[str, Any] = {"canary": what}
    for name, looked in (("by traffic", False), ("with pictures", True)):
        status, told = await change.promote(old, wrong, sizes.refuse_seconds, pictures=looked)
        found[name] = {
            "promoted": status == 0,
            "reasons": [line.partition(": ")[2] for line in told.splitlines() if line.startswith("refused: ")],
        }
    await change.move("rollback")
    return found


async def whole(change: Change, made: dict[str, Bundle], sizes: Sizes) -> dict[str, Any]:
    """Every phase; returns figures."""
    old, new = made["old"], made["new"]
    wrong = [made[what] for what in sizes.wrong]  # promote asks that stable pods serve them, too
    both, other = serving(old, new, *wrong), serving(new, old)
    found: dict[str, Any] = {}
    change.visitors.know(list(made.values()))
    change.visitors.pin(old)
    asking = asyncio.create_task(change.visitors.run(NAME))
    await change.stable.roll(GRACE, **both)  # expand
    found["refused"] = [await refuse(change, what, made, sizes) for what in sizes.wrong]
    await change.put(new, old)
    change.visitors.pin(old, new)
    begin, before = time.monotonic(), change.visitors.total
    for percent in sizes.weights:
        await change.shares(percent, sizes.count, new)
    rate = (change.visitors.total - before) / (time.monotonic() - begin)
    found["shares"] = change.events
    status, told = await change.promote(old, new, 1.0, pictures=False)
    found["too_little_traffic"] = {"promoted": status == 0, "said": told.splitlines()[-1]}
    status, told = await change.promote(old, new, sizes.compared / rate, pictures=True)
    found["promote"] = {"promoted": status == 0, "said": told.splitlines()}
    begin = time.monotonic()
    await change.move("rollback")
    command = time.monotonic() - begin
    await asyncio.sleep(2)  # what is under way
    last = max(at for digest, at in change.visitors.last.items() if digest != old.digest)
    found["rollback_seconds"] = {"command": command, "last_answer_of_the_canary": last - begin}
    await change.move("shift", "99")
    await change.stable.roll(GRACE, **other)  # the stable pods answer with the new version, and still serve both
    await change.move("rollback")
    await change.canary.end("c" if "c" in change.canary.running else "d", GRACE)
    change.visitors.pin(new)
    await asyncio.sleep(2)  # what is under way
    await change.stable.roll(GRACE, **serving(new))  # contract
    change.visitors.stop()
    await asking
    found["exit_statuses"] = sorted({*change.stable.statuses, *change.canary.statuses})
    found["requests"] = change.visitors.total
    found["failed"] = sum(tally.failures.total() for tally in change.visitors.tallies.values())
    found["failures"] = change.visitors.failures()
    found["by_way"] = {way: tally.asked for way, tally in sorted(change.visitors.tallies.items())}
    return found


async def run(folder: Path, overlay: Path, sizes: Sizes) -> dict[str, Any]:
    """Change a model in `folder`, with the weights of this overlay."""
    home = folder / "home"
    made = candidates.make(home)
    port, *targets = ports.free(5)
    stable, canary = dict(zip("ab", targets[:2], strict=True)), dict(zip("cd", targets[2:], strict=True))
    settings = {"DUET_DRAIN_SECONDS": "2", "DUET_CACHE_MEMORY_BYTES": "0"}  # each answer is computed
    with proxies.split(port, stable, canary, folder / "proxy") as (left, right):
        those = replicas(1, "classification", stable, home, left, **settings, **serving(made["old"]))
        others = replicas(0, "classification", canary, home, right, **settings)
        async with those as stable_pods, others as canary_pods:
            visitors = Visitors(port, unequal(), sizes.rate)
            pictures = draw(folder / "pictures", sizes.pictures)
            change = Change(overlay, left, stable_pods, canary_pods, visitors, pictures)
            found = await whole(change, made, sizes)
    return found | {"versions": {what: version.digest for what, version in made.items()}}


def unequal() -> np.ndarray:
    """Held-out digits, uint8 [N,1,28,28], the more of a class the lower it is: traffic is seldom of equal shares."""
    test = load_digits().test
    assert test.labels is not None
    weights = 1 / (1.0 + test.labels)
    return test.images[np.random.default_rng(3).choice(len(test), 512, p=weights / weights.sum())]


def draw(folder: Path, count: int) -> Path:
    """Held-out digits as PNG files."""
    folder.mkdir()
    for index, image in enumerate(load_digits().test.images[:count]):
        Image.fromarray(image[0]).save(folder / f"{index}.png")
    return folder


def main() -> None:
    options = report.options(__doc__).parse_args()
    sizes = Sizes(count=1000, compared=2000, weights=(50,), wrong=("slow",)) if options.quick else Sizes()
    with tempfile.TemporaryDirectory(prefix="duet-change-") as name:
        folder = Path(name)
        found = uvloop.run(run(folder, overlay.write(folder / "overlay"), sizes))
    report.out.print_json(data=found)
    report.save(options.out, "model_change", report.machine(), found)


if __name__ == "__main__":
    main()
