# SPDX-License-Identifier: Apache-2.0
"""Frozen values behave as those of ``dataclasses`` do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lmcache_plugin_adapter.contract.frozen import frozen, replaced


@frozen
class Point:
    """A value with a default."""

    x: int
    y: int = 2


def test_fields_come_by_position_and_by_name() -> None:
    """As the annotations order them; what is not given has its default."""
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert Point(1, 3) == Point(y=3, x=1)
    assert repr(Point(1)) == "Point(x=1, y=2)"
    assert replaced(Point(1), y=5) == Point(1, 5)


def test_equal_values_are_one_in_a_set() -> None:
    """Values are compared by their fields, and only with their own class."""
    assert {Point(1), Point(1, 2)} == {Point(1)}
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2)


def test_a_value_cannot_be_changed() -> None:
    """Neither set nor deleted."""
    point = Point(1)
    with pytest.raises(AttributeError, match="frozen"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del point.x


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "no value for 'x'"),
        ((1, 2, 3), {}, "too many values"),
        ((1,), {"x": 1}, "too many values"),
        ((1,), {"z": 1}, "no field 'z'"),
    ],
)
def test_wrong_fields_are_named(args: tuple[int, ...], kwargs: dict[str, int], said: str) -> None:
    """As a call with wrong arguments is."""
    with pytest.raises(TypeError, match=said):
        Point(*args, **kwargs)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("planning.child", {"dataclasses", "inspect", "typing", "ast"}),
        ("supervisor", {"dataclasses", "inspect", "typing", "ast", "re", "json", "socket"}),
    ],
)
def test_planner_and_supervisor_load_nothing_heavy(module: str, heavy: set[str]) -> None:
    """What it would cost stands in ``docs/how-it-works/performance.md``."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        f"import lmcache_plugin_adapter.supervisor.{module}; print(*sys.modules)"
    )
    root = __file__.rpartition("/tests/")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, root],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not heavy & set(done.stdout.split())
