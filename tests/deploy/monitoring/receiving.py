"""A webhook: what Alertmanager tells people."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Told:
    """An alert that reached a receiver.

    Attributes:
        at: the epoch time at which it came.
        began: the epoch time since which it fires.
        status: firing or resolved.
    """

    at: float
    receiver: str
    status: str
    name: str
    severity: str
    job: str
    began: float


@dataclass
class Webhook:
    """The receivers of a configuration, as paths of one address."""

    url: str
    told: list[Told] = field(default_factory=list)

    def firing(self, since: float) -> list[Told]:
        """What was told of alerts that began after an epoch time, once each, the first word first."""
        first: dict[tuple[str, str, str], Told] = {}
        for one in list(self.told):
            if one.status == "firing" and one.began >= since:
                first.setdefault((one.name, one.severity, one.job), one)
        return list(first.values())


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in document["alerts"]:
                labels = alert["labels"]
                found.told.append(
                    Told(
                        at=time.time(),
                        receiver=self.path.removeprefix("/"),
                        status=alert["status"],
                        name=labels["alertname"],
                        severity=labels["severity"],
                        job=labels.get("job", ""),
                        began=datetime.fromisoformat(alert["startsAt"]).timestamp(),
                    )
                )
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Webhook(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
