"""Load each of the three services in turn, started here with the models of an empty store, and give one verdict.

    python -m loadtests.load                 20 s at 20 requests/s on each
    python -m loadtests.load --rate ramp:5:60:60 --report build/load

Every other option goes to Locust. The exit status is the worst of the three.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager

from loadtests.bench import cores, server
from loadtests.load.verdict import INVALID

USERS = {"generation": "GenerationUser", "classification": "ClassificationUser", "anomaly": "AnomalyUser"}
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="steady:20:20", help="requests/s over time (%(default)s)")
    parser.add_argument("--report", default="", help="a folder for report.json and report.html of each service")
    given, others = parser.parse_known_args()
    statuses = []
    with tempfile.TemporaryDirectory() as home, _serve("generation", home) as painter:
        for service, user in USERS.items():
            sys.stdout.write(f"\n{service}: {given.rate}\n")
            sys.stdout.flush()
            with _serve(service, home) as target:
                options = ["--host", target.url, "--draw-from", painter.url, "--rate", given.rate]
                options += ["--report", f"{given.report}/{service}"] if given.report else []
                statuses.append(subprocess.call([*LOCUST, *options, *others, user], cwd=cores.ROOT))
    sys.exit(worst(statuses))


def worst(statuses: Sequence[int]) -> int:
    """The worst exit status; a run that a signal ended (a negative status) is invalid."""
    return max(INVALID if status < 0 else status for status in statuses)


def _serve(service: str, home: str) -> AbstractContextManager[server.Server]:
    command = [sys.executable, "-m", "training", "serve", service, "--port", "{port}"]
    return server.running(service, command, BENTOML_HOME=home, DUET_DRAIN_SECONDS="0")


if __name__ == "__main__":
    main()
