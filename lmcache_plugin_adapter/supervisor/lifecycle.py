# SPDX-License-Identifier: Apache-2.0
"""The lifecycle of a plugin: its states, its events, and the one transition function.

A timer is an event: one that fires in a state for which it was not set changes
nothing. An event that cannot happen in a state raises, so that a bug in the
supervisor does not corrupt a state.
"""

from __future__ import annotations

import enum
import signal

from lmcache_plugin_adapter.contract.plugin_states import NO_RESTART_CODE, State


class Event(str, enum.Enum):
    """An event in the life of a plugin."""

    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn failed"
    CANNOT_RUN = "cannot run"
    EXITED = "first process exited"
    RUN_FAILED = "run failed"
    CLEARED = "no process left"
    LEFTOVERS = "leftover processes found"
    RESTART_DUE = "policy: restart"
    RUN_LATER = "schedule: run later"
    DONE = "policy: no restart"
    GIVE_UP = "exit code 125"
    BACKOFF_ELAPSED = "backoff elapsed"
    RUN_DUE = "scheduled run due"
    STOP = "stop requested"
    START = "start requested"


class LifecycleError(Exception):
    """An event occurred in a state in which it cannot occur."""


_S, _E = State, Event

_MOVES: dict[tuple[State, Event], State] = {
    (_S.STARTING, _E.SPAWNED): _S.RUNNING,
    (_S.STARTING, _E.SPAWN_FAILED): _S.BACKING_OFF,
    (_S.STARTING, _E.CANNOT_RUN): _S.FAILED,
    (_S.STARTING, _E.STOP): _S.STOPPED,
    (_S.RUNNING, _E.CANNOT_RUN): _S.FAILED,  # exec failed after the fork
    (_S.RUNNING, _E.EXITED): _S.CLEARING,
    (_S.RUNNING, _E.RUN_FAILED): _S.STOPPING,  # a failed run, unlike a stopped one
    (_S.RUNNING, _E.STOP): _S.STOPPING,
    (_S.CLEARING, _E.RESTART_DUE): _S.BACKING_OFF,
    (_S.CLEARING, _E.RUN_LATER): _S.WAITING,
    (_S.CLEARING, _E.DONE): _S.EXITED,
    (_S.CLEARING, _E.GIVE_UP): _S.FAILED,
    (_S.CLEARING, _E.STOP): _S.STOPPING,
    (_S.BACKING_OFF, _E.LEFTOVERS): _S.CLEARING,
    (_S.WAITING, _E.LEFTOVERS): _S.CLEARING,
    (_S.EXITED, _E.LEFTOVERS): _S.CLEARING,
    (_S.FAILED, _E.LEFTOVERS): _S.CLEARING,
    (_S.STOPPED, _E.LEFTOVERS): _S.CLEARING,
    (_S.BACKING_OFF, _E.BACKOFF_ELAPSED): _S.STARTING,
    (_S.BACKING_OFF, _E.START): _S.STARTING,
    (_S.BACKING_OFF, _E.STOP): _S.STOPPED,
    (_S.WAITING, _E.RUN_DUE): _S.STARTING,
    (_S.WAITING, _E.START): _S.STARTING,
    (_S.WAITING, _E.STOP): _S.STOPPED,
    (_S.STOPPING, _E.CLEARED): _S.STOPPED,
    (_S.STOPPING, _E.RESTART_DUE): _S.BACKING_OFF,
    (_S.STOPPING, _E.RUN_LATER): _S.WAITING,
    (_S.STOPPING, _E.DONE): _S.EXITED,
    (_S.STOPPING, _E.GIVE_UP): _S.FAILED,
    (_S.STOPPED, _E.START): _S.STARTING,
    (_S.EXITED, _E.START): _S.STARTING,
    (_S.FAILED, _E.START): _S.STARTING,
}

# Events that change nothing: a repeated request, an outdated timer, the exit of the
# first process or a late exec error while the plugin is stopping.
_STAY: dict[Event, frozenset[State]] = {
    _E.START: frozenset({_S.STARTING, _S.RUNNING, _S.CLEARING, _S.STOPPING, _S.REFUSED}),
    _E.STOP: frozenset({_S.STOPPING, _S.STOPPED, _S.EXITED, _S.FAILED, _S.REFUSED}),
    _E.BACKOFF_ELAPSED: frozenset(_S) - {_S.BACKING_OFF},
    _E.RUN_DUE: frozenset(_S) - {_S.WAITING},
    _E.EXITED: frozenset({_S.STOPPING, _S.FAILED}),
    _E.CANNOT_RUN: frozenset({_S.STOPPING}),
}


def transition(state: State, event: Event) -> State:
    """Return the state that follows ``state`` on ``event``.

    Raises:
        LifecycleError: ``event`` cannot happen in ``state``.
    """
    moved = _MOVES.get((state, event))
    if moved is not None:
        return moved
    if state in _STAY.get(event, ()):
        return state
    raise LifecycleError(f"event {event.value!r} cannot happen in state {state.value!r}")


_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE})


def is_failure(code: int) -> bool:
    """Return whether an exit code, or minus a signal's number, is that of a failure."""
    return code != 0 and -code not in _STOP_SIGNALS


def after_exit(code: int, restart: str, failed: bool = False, scheduled: bool = False) -> Event:
    """Return what follows an exit under the restart policy.

    Args:
        code: The exit code, or minus the signal's number.
        restart: ``never``, ``on-failure`` or ``always``. A failure is a code
            other than 0, or a signal other than TERM, INT, HUP and PIPE.
        failed: Whether the exit is a failure whatever its code.
        scheduled: Whether the plugin runs on a schedule, whatever its policy.
    """
    if code == NO_RESTART_CODE:
        return Event.GIVE_UP
    if scheduled:
        return Event.RUN_LATER
    if restart == "always" or (restart == "on-failure" and (failed or is_failure(code))):
        return Event.RESTART_DUE
    return Event.DONE


def diagram() -> str:
    """Return the states and transitions as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> starting", "    [*] --> refused"]
    names = {state: state.value.replace("-", "_") for state in State}
    lines += [f"    {names[s]} : {s.value}" for s in State if names[s] != s.value]
    lines += [
        f"    {names[source]} --> {names[target]} : {event.value}"
        for (source, event), target in _MOVES.items()
    ]
    return "\n".join(lines)


def describe() -> str:
    """Return diagram and states as Markdown, for the documentation."""
    rows = [f"| `{state.value}` | {state.meaning} |" for state in State]
    table = ["| state | meaning |", "|---|---|", *rows]
    return "\n".join(["```mermaid", diagram(), "```", "", *table])


if __name__ == "__main__":
    print(describe())  # `python -m lmcache_plugin_adapter.supervisor.lifecycle`, for the page
