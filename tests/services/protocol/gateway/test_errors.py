"""What an app behind the guard raises becomes a problem that tells the caller nothing of the code."""

from __future__ import annotations

import logging

import pytest
from starlette.types import Receive, Scope, Send

from services.dataplane import DataPlane
from services.errors import QueueFull
from tests.services.protocol.gateway.asgi import Client
from tests.services.protocol.gateway.samples import total


async def test_an_error_of_the_catalogue_from_inside_becomes_its_problem(plane: DataPlane) -> None:
    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        raise QueueFull("no room", retry_after=3)

    answer = await Client(plane, full).ask()
    assert (answer.status, answer.problem["detail"], answer.headers["retry-after"]) == (429, "no room", "3")


async def test_an_exception_inside_tells_the_log_everything_and_the_caller_nothing(
    plane: DataPlane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)  # a server's set-up switches it off

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    before = total("duet_request_duration_seconds_count", route="/echo", status="500")
    with caplog.at_level(logging.ERROR, "duet.gateway"):
        answer = await Client(plane, broken).ask(headers={"X-Request-Id": "mine"})
    assert answer.status == 500
    assert answer.headers["x-request-id"] == "mine"
    assert answer.problem["detail"] == "an unexpected error occurred; see the server's log"
    assert b"secret" not in answer.body
    assert b"KeyError" not in answer.body
    assert "KeyError: 'secret'" in caplog.text
    assert total("duet_request_duration_seconds_count", route="/echo", status="500") == before + 1
    assert total("duet_requests_in_flight", route="/echo") == 0


@pytest.mark.parametrize("error", [KeyError("late"), QueueFull("late")])
async def test_an_answer_that_has_begun_is_not_begun_again(plane: DataPlane, error: Exception) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    client = Client(plane, late)
    with pytest.raises(type(error), match="late"):
        await client.ask()
    assert len(client.sent) == 1
    assert total("duet_requests_in_flight", route="/echo") == 0
