# SPDX-License-Identifier: Apache-2.0
"""Every cell of the state table, and what the restart policy makes of an exit."""

# ruff: noqa: E501 - a table is read in columns
from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lmcache_plugin_adapter.contract.plugin_states import NO_RESTART_CODE, State
from lmcache_plugin_adapter.kit import run_entry_point, running
from lmcache_plugin_adapter.messages.wording import exit_text
from lmcache_plugin_adapter.supervisor.lifecycle import (
    Event,
    LifecycleError,
    after_exit,
    describe,
    diagram,
    transition,
)

# One row a state, one column an event, in the order of the enums; "." stays, "!" cannot happen.
TABLE = """
             SPAWNED SPAWN_FAILED CANNOT_RUN EXITED   RUN_FAILED CLEARED LEFTOVERS RESTART_DUE RUN_LATER DONE   GIVE_UP BACKOFF  RUN_DUE  STOP     START
STARTING     RUNNING BACKING_OFF  FAILED     !        !          !       !         !           !         !      !       .        .        STOPPED  .
RUNNING      !       !            FAILED     CLEARING STOPPING   !       !         !           !         !      !       .        .        STOPPING .
CLEARING     !       !            !          !        !          !       !         BACKING_OFF WAITING   EXITED FAILED  .        .        STOPPING .
BACKING_OFF  !       !            !          !        !          !       CLEARING  !           !         !      !       STARTING .        STOPPED  STARTING
WAITING      !       !            !          !        !          !       CLEARING  !           !         !      !       .        STARTING STOPPED  STARTING
STOPPING     !       !            .          .        !          STOPPED !         BACKING_OFF WAITING   EXITED FAILED  .        .        .        .
STOPPED      !       !            !          !        !          !       CLEARING  !           !         !      !       .        .        .        STARTING
EXITED       !       !            !          !        !          !       CLEARING  !           !         !      !       .        .        .        STARTING
FAILED       !       !            !          .        !          !       CLEARING  !           !         !      !       .        .        .        STARTING
REFUSED      !       !            !          !        !          !       !         !           !         !      !       .        .        .        .
"""

CELLS = [
    (State[row.split()[0]], event, cell)
    for row in TABLE.strip().splitlines()[1:]
    for event, cell in zip(Event, row.split()[1:], strict=True)
]


def test_table_names_every_state() -> None:
    """The table above has a row for each state."""
    assert [state for state in State for _ in Event] == [state for state, _, _ in CELLS]


@pytest.mark.parametrize(("state", "event", "cell"), CELLS)
def test_each_cell_is_decided(state: State, event: Event, cell: str) -> None:
    """Each state moves, stays or refuses on each event as the table says."""
    if cell == "!":
        with pytest.raises(LifecycleError, match=f"{event.value}.*{state.value}"):
            transition(state, event)
    else:
        assert transition(state, event) is (state if cell == "." else State[cell])


@pytest.mark.parametrize(
    ("code", "restart", "expected"),
    [
        (0, "never", Event.DONE),
        (0, "on-failure", Event.DONE),
        (0, "always", Event.RESTART_DUE),
        (1, "never", Event.DONE),
        (1, "on-failure", Event.RESTART_DUE),
        (1, "always", Event.RESTART_DUE),
        (125, "never", Event.GIVE_UP),
        (125, "on-failure", Event.GIVE_UP),
        (125, "always", Event.GIVE_UP),
        (-signal.SIGTERM, "on-failure", Event.DONE),
        (-signal.SIGINT, "on-failure", Event.DONE),
        (-signal.SIGHUP, "on-failure", Event.DONE),
        (-signal.SIGPIPE, "on-failure", Event.DONE),
        (-signal.SIGTERM, "always", Event.RESTART_DUE),
        (-signal.SIGKILL, "on-failure", Event.RESTART_DUE),
        (-signal.SIGSEGV, "on-failure", Event.RESTART_DUE),
        (-signal.SIGKILL, "never", Event.DONE),
    ],
)
def test_restart_policy(code: int, restart: str, expected: Event) -> None:
    """A failure is a code other than 0, or a signal other than TERM, INT, HUP and PIPE."""
    assert after_exit(code, restart) is expected


def test_a_run_over_a_limit_has_failed_whatever_its_exit_code() -> None:
    """The supervisor has ended it: with SIGTERM, or by its own exit."""
    assert after_exit(0, "on-failure", failed=True) is Event.RESTART_DUE
    assert after_exit(-signal.SIGTERM, "on-failure", failed=True) is Event.RESTART_DUE
    assert after_exit(-signal.SIGTERM, "never", failed=True) is Event.DONE
    assert after_exit(NO_RESTART_CODE, "always", failed=True) is Event.GIVE_UP


@pytest.mark.parametrize("code", [0, 1, -signal.SIGSEGV])
@pytest.mark.parametrize("restart", ["never", "on-failure", "always"])
def test_scheduled_runs_ignore_the_restart_policy(code: int, restart: str) -> None:
    """The next run comes on schedule, unless the exit code asks for none."""
    assert after_exit(code, restart, scheduled=True) is Event.RUN_LATER
    assert after_exit(NO_RESTART_CODE, restart, scheduled=True) is Event.GIVE_UP


def test_one_exit_code_asks_not_to_be_restarted() -> None:
    """The supervisor, the kit for authors and what runs installed plugins mean the same one."""
    assert {NO_RESTART_CODE, running.NO_RESTART_CODE, run_entry_point.NO_RESTART_CODE} == {125}


def test_exit_is_said_by_code_or_signal_name() -> None:
    """People read a signal's name, and a hint where the kernel may have killed."""
    assert exit_text(3) == "Exited with code 3"
    assert exit_text(-signal.SIGSEGV) == "Killed by SIGSEGV"
    assert exit_text(-signal.SIGKILL).startswith("Killed by SIGKILL (out of memory?")
    assert exit_text(-64 - 1) == "Killed by signal 65"


def test_diagram_draws_every_state_and_move() -> None:
    """The documentation's diagram comes from the table itself."""
    drawn = diagram()
    for state in State:
        assert state.value.replace("-", "_") in drawn
    assert "running --> clearing : first process exited" in drawn


def test_every_state_says_what_it_means() -> None:
    """No state lacks its line for people."""
    assert all(state.meaning for state in State)


def test_documentation_shows_the_table() -> None:
    """The diagram and the states in the architecture page are the ones of the code."""
    page = (Path(__file__).parents[3] / "docs" / "how-it-works" / "architecture.md").read_text()
    _, _, rest = page.partition("<!-- state diagram -->\n")
    shown, _, _ = rest.partition("<!-- end of state diagram -->")
    assert shown.strip() == describe()
