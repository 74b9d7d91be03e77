"""A replica is replaced behind a proxy without a failed request, and the same clients notice when it is not drained."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from loadtests.rollout import proxies
from loadtests.rollout.restart import CASES, make_home, run
from loadtests.rollout.traffic import Mix

pytestmark = [pytest.mark.server, pytest.mark.slow]

MIX = Mix(rate=100, busy=6, pollers=12, streams=1, uploads=1)
INSTALLED = [name for name in proxies.PROGRAMS if proxies.program(name)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_replacing_a_replica_fails_no_request_if_it_is_drained(case: object, home: Path) -> None:
    if not INSTALLED:
        pytest.skip("neither haproxy nor nginx is installed (Debian: apt-get install haproxy nginx)")
    assert case in CASES
    for told in uvloop.run(run(case, INSTALLED, home, MIX, rolls=1, count=1)):
        assert told["exit_statuses"] == [0]
        assert (told["failed"] == 0) is (case is CASES[0]), told
        assert told["by_kind"].keys() == {"busy connections", "connections with pauses", "streams", "large bodies"}
        assert all(tally["asked"] for tally in told["by_kind"].values()), told
