"""`python -m deploy.rollout`, as an operator calls it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.rollout import __main__ as command
from deploy.rollout import evidence
from loadtests.rollout.overlay import ROUTE, ROUTE_FILE, write
from tests.conftest import ROOT, free_port

OLD, NEW = "digits-linear:1", "digits-linear:2"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    return write(tmp_path / "overlay")


def rollout(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "deploy.rollout", *map(str, arguments)]
    return subprocess.run(call, cwd=ROOT, env=os.environ | environment, check=False, capture_output=True, text=True)


def test_weights_move_there_and_back(overlay: Path) -> None:
    path = overlay / "route.yaml"
    dry = rollout("shift", ROUTE, "10", "--overlay", overlay, "--dry-run")
    assert (dry.returncode, path.read_text()) == (0, ROUTE_FILE)
    told = rollout("shift", ROUTE, "10", "--overlay", overlay)
    assert told.returncode == 0
    assert told.stdout.startswith(dry.stdout)
    assert told.stdout.splitlines()[-1] == f"written: {path}; commit it, or let --apply give it to the cluster"
    assert f"-        - {{ name: {ROUTE}, port: 3000, weight: 100 }}" in told.stdout.splitlines()
    assert f"+        - {{ name: {ROUTE}, port: 3000, weight: 90 }}" in told.stdout.splitlines()
    assert path.read_text() == ROUTE_FILE.replace("weight: 100", "weight: 90").replace("weight: 0", "weight: 10")
    assert rollout("rollback", ROUTE, "--overlay", overlay).returncode == 0
    assert path.read_text() == ROUTE_FILE
    again = rollout("rollback", ROUTE, "--overlay", overlay)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, f"{path}: the canary has 0 % already")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("shift", ROUTE, "100"), 2, "invalid choice: 100"),
        (("shift", "duet-other", "10"), 1, "0 of its files have backendRefs duet-other and duet-other-canary"),
        (("promote", ROUTE), 2, "the following arguments are required: --from, --to, --stable, --canary"),
    ],
)
def test_what_cannot_be_moved_is_refused(overlay: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    told = rollout(*arguments, "--overlay", overlay)
    assert told.returncode == status
    assert said in told.stderr
    assert (overlay / "route.yaml").read_text() == ROUTE_FILE


def test_a_canary_that_cannot_be_asked_is_not_promoted(overlay: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    asked = ("--from", OLD, "--to", NEW, "--stable", url, "--canary", url, "--seconds", "0")
    told = rollout("promote", ROUTE, *asked, "--overlay", overlay)
    assert told.returncode == 1
    assert told.stderr.startswith(f"error: {url}/metrics: ")
    assert (overlay / "route.yaml").read_text() == ROUTE_FILE


def test_without_kubectl_or_cluster_the_error_is_one_line(overlay: Path, tmp_path: Path) -> None:
    """The weights are written: they are what is committed, and the cluster gets them by the next attempt."""
    told = rollout("shift", ROUTE, "10", "--overlay", overlay, "--apply", PATH=str(tmp_path))
    assert (told.returncode, told.stderr.splitlines()) == (
        1,
        ["error: kubectl is not installed (kubectl gives the route to the cluster)"],
    )
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (Debian: no package; kubernetes.io has the program)")
    told = rollout("shift", ROUTE, "20", "--overlay", overlay, "--apply", KUBECONFIG="/dev/null")
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith("error: kubectl apply -f - ended with 1")
    assert "weight: 20" in (overlay / "route.yaml").read_text()


def page(version: str, *, late: int) -> evidence.Page:
    """What a pod counted in a minute: 20,000 answers of two classes, `late` of them slower than 5 ms."""
    route = {"route": "/classify", "status": "200"}
    found: evidence.Page = {
        (f"{evidence.REQUESTS}_bucket", frozenset((route | {"le": bound}).items())): count
        for bound, count in (("0.001", 9_000.0), ("0.005", 20_000.0 - late), ("0.01", 20_000.0), ("+Inf", 20_000.0))
    }
    model = {"model": "digits-linear", "version": version}
    for label in "01":
        found[evidence.PREDICTIONS, frozenset((model | {"label": label}).items())] = 10_000.0
    return found


@pytest.mark.parametrize(("late", "weights"), [(100, ["0", "100"]), (2_000, ["100", "0"])])
def test_promote_moves_every_request_if_the_canary_is_as_good(
    overlay: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], late: int, weights: list[str]
) -> None:
    pages = [[page("1", late=100)], [page("2", late=late)]]
    monkeypatch.setattr(evidence, "check_served", lambda groups, models: None)
    monkeypatch.setattr(evidence, "over", lambda seconds, groups: pages)
    asked = ["--from", OLD, "--to", NEW, "--stable", "http://a", "--canary", "http://b", "--overlay", str(overlay)]
    monkeypatch.setattr(sys, "argv", ["rollout", "promote", ROUTE, *asked])
    if late > 100:
        with pytest.raises(SystemExit, match="1"):
            command.main()
        assert "refused: answers slower than 0.005 s: 10.00 % of the canary's 20000" in capsys.readouterr().out
    else:
        command.main()
    assert re.findall(r"weight: (\d+)", (overlay / "route.yaml").read_text()) == weights
