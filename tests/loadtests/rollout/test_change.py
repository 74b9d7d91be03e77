"""A whole model change under load, with the numbers of traffic that a comparison takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import uvloop

from loadtests.rollout import change, overlay, proxies
from loadtests.rollout.change import Sizes

pytestmark = [pytest.mark.server, pytest.mark.nightly]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed (see kubernetes.io)")
@pytest.mark.skipif(
    proxies.program("haproxy") is None, reason="haproxy is not installed (Debian: apt-get install haproxy)"
)
def test_a_model_changes_without_a_failed_or_wrong_answer(tmp_path: Path) -> None:
    sizes = Sizes(count=1500, weights=(10, 50))
    found = uvloop.run(change.run(tmp_path, overlay.write(tmp_path / "overlay"), sizes))
    assert (found["failed"], found["failures"], found["exit_statuses"]) == (0, {}, [0])
    assert all(one["within"] for one in found["shares"]), found["shares"]
    assert not found["too_little_traffic"]["promoted"]
    assert found["promote"]["promoted"], found["promote"]
    for refused in found["refused"]:
        assert not refused["by traffic"]["promoted"], refused
        assert refused["by traffic"]["reasons"], refused
