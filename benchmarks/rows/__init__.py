# SPDX-License-Identifier: Apache-2.0
"""All rows, in the order of the table."""

from __future__ import annotations

from benchmarks.row import Row

from . import (
    burners,
    completion,
    drain,
    engine_killed,
    engine_loop,
    flood,
    gallery,
    idle,
    launch_blocked,
    launch_to_running,
    memory,
    stop,
    thousand,
)

ROWS: tuple[Row, ...] = (
    launch_blocked.ROW,
    engine_loop.ROW,
    drain.ROW,
    flood.ROW,
    burners.ROW,
    launch_to_running.ROW,
    stop.ROW,
    engine_killed.ROW,
    memory.ROW,
    gallery.ROW,
    idle.ROW,
    thousand.ROW,
    completion.ROW,
)
