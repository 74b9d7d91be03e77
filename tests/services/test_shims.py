"""What Duet uses of other libraries is still there, and its absence is said."""

from __future__ import annotations

import pytest
from circus.sighandler import SysHandler
from starlette.applications import Starlette

from services.shims import changes, hoist, too_many_files


def test_the_pinned_versions_have_what_is_used() -> None:
    assert changes() == []


def test_a_change_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SysHandler, "signal")
    monkeypatch.setattr(Starlette, "__call__", lambda self, scope, receive, send: None)
    assert [change.partition(":")[0] for change in changes()] == ["starlette", "circus"]


def test_a_stack_that_is_not_built_is_not_wrapped() -> None:
    assert not hoist(Starlette(), lambda stack: stack)
    assert not hoist(None, lambda stack: stack)
    assert too_many_files("Too many files. Maximum number of files is 2.")
