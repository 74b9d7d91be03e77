"""A Locust user that sends one fixed request, as second opinion on wrk: see crosscheck.py."""

import json
import os
from pathlib import Path

from locust import FastHttpUser, task

FOLDER = Path(os.environ["BENCH_REQUEST"])
REQUEST = json.loads((FOLDER / "request.json").read_text())
BODY = (FOLDER / "body").read_bytes()


class BenchUser(FastHttpUser):
    @task
    def ask(self) -> None:
        self.client.post(REQUEST["path"], data=BODY, headers=REQUEST["headers"])  # type: ignore[arg-type]  # bytes are sent as they are
