"""Replicas of a service as a Deployment has them: a new one is ready before an old one is told to stop."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench import cores
from loadtests.bench.server import PATIENCE, stop
from loadtests.rollout.clients import status_of
from loadtests.rollout.proxies import Proxy

PERIOD = 0.5  # seconds between two looks at /readyz
PROPAGATION = 1.0  # seconds until a proxy knows that a pod is being deleted


@dataclass(frozen=True)
class Grace:
    """How a pod ends: `pre_stop` seconds after its deletion it gets SIGTERM, and then it drains.

    The drain is a setting of the replica, `DUET_DRAIN_SECONDS`.
    """

    pre_stop: float


@dataclass
class Replica:
    slot: str
    port: int
    process: subprocess.Popen[bytes]


@dataclass
class Replicas:
    """What runs in the slots that proxies know.

    Attributes:
        statuses: exit statuses of replicas that were told to stop; 0 is a proper end.
    """

    service: str
    targets: Mapping[str, int]
    home: Path
    proxies: Sequence[Proxy]
    settings: Mapping[str, str]
    running: dict[str, Replica] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)

    async def start(self, slot: str) -> None:
        """Start a replica in a free slot; the proxy uses it when /readyz answers 200, as an endpoint of Kubernetes."""
        port = self.targets[slot]
        command = [sys.executable, "-m", "training", "serve", self.service, "--port", str(port)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_"))}
        base = {"BENTOML_HOME": str(self.home), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(cores.ROOT)}
        log = self.home / f"{slot}.log"
        environment = kept | base | dict(self.settings)
        process = await asyncio.to_thread(_start, command, environment, log)
        self.running[slot] = Replica(slot, port, process)
        for _ in range(int(PATIENCE / PERIOD)):
            if await status_of(port, "/readyz") == 200:
                for proxy in self.proxies:
                    proxy.use(slot)
                return
            if process.poll() is not None:
                break
            await asyncio.sleep(PERIOD)
        sys.exit(f"the replica in slot {slot} is not ready; its log ends with:\n{log.read_text()[-2000:]}")

    async def end(self, slot: str, grace: Grace) -> None:
        """Delete a replica: the proxy learns of it soon, and the replica gets SIGTERM after its preStop."""
        replica = self.running.pop(slot)
        leaving = asyncio.create_task(self._leave(slot))
        await asyncio.sleep(grace.pre_stop)
        replica.process.send_signal(signal.SIGTERM)
        self.statuses.append(await asyncio.to_thread(replica.process.wait, PATIENCE))
        await leaving

    async def _leave(self, slot: str) -> None:
        await asyncio.sleep(PROPAGATION)
        for proxy in self.proxies:
            proxy.leave(slot)

    async def roll(self, grace: Grace, **settings: str) -> None:
        """Replace every replica, one after another, each by one that is ready before; with other settings, if given."""
        self.settings = {**self.settings, **settings}
        for old in list(self.running):
            (free, *_) = [slot for slot in self.targets if slot not in self.running]
            await self.start(free)
            await self.end(old, grace)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{replica.port}" for replica in self.running.values()]


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        options = {"stdout": stream, "stderr": stream, "start_new_session": True, "cwd": log.parent}
        return subprocess.Popen(command, env=environment, **options)


@asynccontextmanager
async def replicas(
    count: int, service: str, targets: Mapping[str, int], home: Path, *proxies: Proxy, **settings: str
) -> AsyncIterator[Replicas]:
    """`count` replicas that are ready and used, until the end of the block."""
    those = Replicas(service, targets, home, proxies, settings)
    try:
        await asyncio.gather(*(those.start(slot) for slot in list(targets)[:count]))
        yield those
    finally:
        for replica in those.running.values():
            with contextlib.suppress(ProcessLookupError):
                stop(replica.process)
