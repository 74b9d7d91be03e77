"""Several processes that end together: an error on one is told to the others, which end with its reason.

Without it they would wait for gradients that never come: NCCL for ten minutes, gloo for ever where the failed process
does not exit. What is told goes through the store by which the processes found each other, not through their
collectives, which no longer work.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from training.loops.progress import write

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FAILED = "duet/failed"
OFTEN = 0.5  # seconds between two looks at the store
HEARD = 5.0  # seconds in which the others hear of a failure: the process whose store it is must not end before
STUCK = 20.0  # seconds after which a process that cannot leave a collective is ended
SILENT = "another process ended without saying why: killed from outside, or out of memory"


class ProcessError(RuntimeError):
    """Another process of this training failed; the message says which one and why."""


@contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """A context in which an error on one process ends all, within about half a minute, each with the reason.

    Ctrl-C is left to `Epochs`, which stops all processes at the same step. With one process nothing changes.

    Raises:
        ProcessError: another process failed, or SIGTERM asked this one to end.
    """
    if fabric.world_size == 1:
        yield
        return
    others = _Others(fabric.global_rank, fabric.world_size)
    previous = signal.signal(signal.SIGTERM, _terminated) if _in_main_thread() else None
    others.start()
    try:
        yield
        fabric.barrier()
    except KeyboardInterrupt:
        raise
    except Exception as error:
        reason = others.heard(HEARD if _of_a_collective(error) else 0.0)
        if reason is None and _of_a_collective(error):
            reason = SILENT
        if reason is not None:
            raise ProcessError(f"{reason}. This process ends, too; go on with --resume") from error
        others.tell(str(error) or type(error).__name__)
        raise
    finally:
        others.stop()
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


class _Others(threading.Thread):
    """Watches the store for a failure of another process."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(name="other-processes", daemon=True)
        # A connection of its own: the main thread may wait on the other one.
        store: Any = dist.distributed_c10d._get_default_store()
        self._store = store.clone() if hasattr(store, "clone") else store
        self._rank, self._world = rank, world
        self._reason: str | None = None
        self._told, self._ended = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self._ended.wait(OFTEN):
            try:
                if not self._store.check([FAILED]):
                    continue
                reason = self._store.get(FAILED).decode()
                self._store.set(f"{FAILED}/{self._rank}", "heard")
            except Exception:  # the process of the store is gone
                if self._ended.wait(OFTEN):
                    return
                reason = SILENT
            self._reason = reason
            self._told.set()
            break
        if self._reason is not None and not self._ended.wait(STUCK):
            write(f"{self._reason}. This process is stuck, and is ended; go on with --resume")
            os._exit(1)

    def heard(self, seconds: float) -> str | None:
        """Why another process failed, if one tells within so many seconds."""
        self._told.wait(seconds)
        return self._reason

    def tell(self, reason: str) -> None:
        """Tell the others, and wait until they have heard it; only the first failure counts."""
        try:
            self._store.compare_set(FAILED, "", f"process {self._rank} failed: {reason}")
            keys = [f"{FAILED}/{rank}" for rank in range(self._world) if rank != self._rank]
            until = time.monotonic() + HEARD
            while time.monotonic() < until and not self._store.check(keys):
                time.sleep(OFTEN / 10)
        except Exception:  # noqa: S110 (the process of the store is gone, and this process ends with its own error)
            pass

    def stop(self) -> None:
        self._ended.set()
        self.join(HEARD)


def _of_a_collective(error: BaseException) -> bool:
    """Whether a collective broke, which is how a process notices that another one has ended."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(name in text for name in ("gloo", "NCCL", "Connection closed"))


def _terminated(number: int, frame: FrameType | None) -> None:
    raise ProcessError("ended by SIGTERM: the job was stopped, or another process ended; go on with --resume")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
