"""What one request may ask for."""

from __future__ import annotations

import pytest

from services.errors import TooLarge
from services.tasks.limits import check_count


def test_a_count_may_reach_its_limit() -> None:
    check_count(3, "count", 3)
    with pytest.raises(TooLarge, match="count: 4 items; at most 3") as caught:
        check_count(4, "count", 3)
    assert caught.value.field == "count"
