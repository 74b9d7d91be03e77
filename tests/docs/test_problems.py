"""Problem types: the reference page and the catalogue have the same."""

from __future__ import annotations

from services import errors
from services.errors import DuetError
from tests.docs.pages import REFERENCE, rows


def test_every_problem_type_is_described() -> None:
    documented = {(row[0], row[1]) for row in rows((REFERENCE / "errors.md").read_text())}
    catalogue = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, DuetError)]
    assert documented == {(str(error.status), error.slug) for error in catalogue}
