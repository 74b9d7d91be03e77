"""Four processes that use one model store at the same time: two write, one deletes, one reads.

They are forks of one process, so that Python and BentoML are imported once, and they begin together.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from services.inference import registry
from services.inference.bundle import load
from services.inference.store import reading


def write(sources: list[Path]) -> bool:
    registry.import_archive(random.choice(sources))
    return True


def delete(_: list[Path]) -> bool:
    stored = registry.entries()
    if stored:
        registry.delete(random.choice(stored).tag)  # nobody else deletes it
    return bool(stored)


def read(_: list[Path]) -> bool:
    with reading():
        stored = registry.entries()
        for entry in stored:
            assert load(entry.path).version == entry.version
    return bool(stored)


def work(step: Callable[[list[Path]], bool], sources: list[Path], until: Callable[[int], bool]) -> NoReturn:
    """Take steps and print how many of them found something to do; ends the process."""
    status = 1
    try:
        done = 0
        while not until(done):
            done += step(sources)
        os.write(1, f"{step.__name__} {done}\n".encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main(store: str, steps: str, *sources: str) -> int:
    """Each writer takes so many steps, the others go on until both have ended; the worst status is returned."""
    BentoMLContainer.model_store.set(ModelStore(store))
    folders, ended, children = list(map(Path, sources)), Path(f"{store}.ended"), []
    write(folders)  # so that what BentoML imports late is imported once
    for step in (write, write, delete, read):
        if (child := os.fork()) == 0:
            work(step, folders, int(steps).__le__ if step is write else lambda _: ended.exists())
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children[:2]]
    ended.touch()
    return max(map(os.waitstatus_to_exitcode, statuses + [os.waitpid(child, 0)[1] for child in children[2:]]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
