# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins start, stop, restart, reload``: send requests that change plugins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.supervisors.client import (
    ANSWER_SECONDS,
    plugins_of,
    request_all,
    request_each,
)
from lmcache_plugin_adapter.cli.supervisors.status_answer import with_reason
from lmcache_plugin_adapter.cli.supervisors.survey import survey
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.messages.problem import quoted

from .console import ExitStatus, print_line, print_problem, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.client import Reply
    from lmcache_plugin_adapter.cli.supervisors.search import Address
    from lmcache_plugin_adapter.cli.supervisors.status_answer import SupervisorStatus
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector, Survey

RELOAD_SECONDS = 30.0
"""Time limit for a search for plugins; file systems may be slow."""

SETTLE_SECONDS = 0.3
"""How long a plugin must run before ``--wait`` counts its start as a success."""

GOALS = {
    "start": frozenset({"running", "exited"}),
    "restart": frozenset({"running", "exited"}),
    "stop": frozenset({"stopped", "exited", "failed", "refused"}),
}
"""The states that ``--wait`` counts as a success."""


def manage(
    operation: str,
    names: tuple[str, ...],
    selector: Selector,
    *,
    everything: bool,
    wait: bool,
    timeout: float | None,
    all_users: bool = False,
    other_containers: bool = False,
) -> int:
    """Start, stop or restart plugins; return the exit status.

    Args:
        operation: ``start``, ``stop`` or ``restart``.
        names: Plugins.
        selector: Engine processes.
        everything: Apply to all matching plugins.
        wait: Return when the operation is complete.
        timeout: With ``wait``: time limit in seconds; None: no limit.
        all_users: Root: include the engines of other users.
        other_containers: With ``everything``: also apply to supervisors of other
            PID namespaces.
    """
    if not (names or everything or selector):
        print_problem("error", f"no plugin is named: name some, or {operation} all with --all")
        return ExitStatus.USAGE
    found = survey(selector, all_users=all_users)
    if everything and selector.engine is None and not other_containers:
        found.leave_other_containers()
    if not found.supervisors:
        return _no_supervisor(found, success=operation == "stop" and not names)
    unknown = found.unknown(names)
    if unknown:
        return found.print_problems(unknown)
    if not (everything or selector) and _is_ambiguous(operation, names, found):
        return ExitStatus.USAGE
    targets = found.by_supervisor(names)
    replies = request_each(
        [
            (supervisor.address, {"op": operation, "names": own_names, "wait": wait})
            for supervisor, own_names in targets
        ],
        timeout if wait else ANSWER_SECONDS,
    )
    if wait and operation != "stop":
        _update_states(replies)
    failed = False
    if timeout is not None and wait:
        failed = _finish_late(operation, targets, replies, timeout)
    goal = GOALS[operation] if wait else None
    for (supervisor, _), reply in zip(targets, replies, strict=True):
        if reply.answer is None and reply.problem is None:
            print_line(f"{supervisor.label}: has exited, and its plugins with it")
            failed |= operation != "stop"
        else:
            failed |= not _print_states(operation, supervisor, reply, goal)
    status = found.print_problems()
    return ExitStatus.FAILED if failed else status


def reload(selector: Selector, all_users: bool = False) -> int:
    """Rescan the locations of engines; return the exit status.

    Args:
        selector: Engine processes.
        all_users: Root: include the engines of other users.
    """
    found = survey(selector, all_users=all_users)
    if not found.supervisors:
        return _no_supervisor(found, success=False)
    addresses = [supervisor.address for supervisor in found.supervisors]
    replies = request_all(addresses, {"op": "reload"}, RELOAD_SECONDS)
    failed = False
    searching = _statuses([reply.address for reply in replies if reply.timed_out])
    for supervisor, reply in zip(found.supervisors, replies, strict=True):
        if supervisor.address.path in searching:
            reply.problem = (
                f"still searching the locations after {RELOAD_SECONDS:g} s; the supervisor "
                "applies what it finds later"
            )
        if reply.answer is not None:
            print_line(f"{supervisor.label}: {_changes(reply.answer)}")
        else:
            failed = True
            print_problem("error", f"{supervisor.label}: {reply.problem or 'it has exited'}")
    status = found.print_problems()
    return ExitStatus.FAILED if failed else status


def _no_supervisor(found: Survey, *, success: bool) -> int:
    """Report that nothing runs; the preStop hook of a container stops all in any case."""
    if success and not found.failures:
        print_line(f"Nothing to stop: {found.why_empty}")
        return found.print_problems()
    print_problem("error", found.why_empty)
    return max(found.print_problems(), ExitStatus.FAILED)


def _is_ambiguous(operation: str, names: tuple[str, ...], found: Survey) -> bool:
    """Return whether a name matches plugins of several engine processes, and report it."""
    for name in names:
        labels = [one.label for one, plugin in found.plugins(names) if plugin.is_called(name)]
        if len(labels) > 1:
            where = ", ".join(labels[:4]) + (", …" if len(labels) > 4 else "")
            print_problem(
                "error",
                f"{quoted(name)} runs {len(labels)} times ({where}): choose with --engine, --role, "
                f"--worker-id or --dp-rank, or {operation} all of them with --all",
            )
            return True
    return False


def _print_states(
    operation: str, supervisor: SupervisorStatus, reply: Reply, goal: frozenset[str] | None
) -> bool:
    """Print the states of plugins; return whether the request succeeded, in a state of ``goal``.

    Without a goal, the states are those in which a start or restart has just begun.
    """
    if reply.answer is None:
        print_problem("error", f"{supervisor.label}: {reply.problem}")
        return False
    success = True
    refused = {one.name: one.reason for one in supervisor.plugins if one.state is State.REFUSED}
    for plugin in plugins_of(reply.answer):
        name, state = printable(plugin["name"]), printable(plugin["state"])
        reason = refused.get(plugin["name"]) or printable(str(plugin.get("reason") or ""))
        text = with_reason(state, reason)
        if goal is None and operation != "stop" and state != State.REFUSED.value:
            text = f"{operation} requested ({state})"
        print_line(f"{name} on {supervisor.label}: {text}")
        success &= goal is None or state in goal
    return success


def _update_states(replies: list[Reply]) -> None:
    """Replace the states by those after a moment: a plugin may fail right after its start."""
    time.sleep(SETTLE_SECONDS)
    answered = [reply for reply in replies if reply.answer is not None]
    later = _statuses([reply.address for reply in answered])
    for reply in answered:
        if reply.address.path in later:
            names = {plugin["name"] for plugin in plugins_of(reply.answer or {})}
            reply.answer = _only(names, later[reply.address.path])


def _finish_late(
    operation: str,
    targets: list[tuple[SupervisorStatus, list[str]]],
    replies: list[Reply],
    timeout: float,
) -> bool:
    """Replace missing answers by the present states; report the plugins that need more time.

    A supervisor that answers this second request is healthy: only its plugins are slow.

    Returns:
        Whether a plugin needs more time.
    """
    present = _statuses([reply.address for reply in replies if reply.timed_out])
    late = False
    for (supervisor, names), reply in zip(targets, replies, strict=True):
        if supervisor.address.path not in present:
            continue
        reply.problem = None
        reply.answer = _only(names, present[supervisor.address.path])
        for plugin in list(reply.answer["plugins"]):
            state = str(plugin["state"])
            if state not in GOALS[operation]:
                late = True
                reply.answer["plugins"].remove(plugin)
                print_problem(
                    "error",
                    f"{printable(str(plugin['name']))} on {supervisor.label}: still "
                    f"{printable(state)} after {timeout:g} s; the {operation} continues",
                )
    return late


def _statuses(addresses: list[Address]) -> dict[str, dict[str, Any]]:
    """Return the present status of the supervisors that answer, by directory."""
    replies = request_all(addresses, {"op": "status"})
    return {reply.address.path: reply.answer for reply in replies if reply.answer is not None}


def _only(names: Collection[str], status: dict[str, Any]) -> dict[str, Any]:
    """Return the plugins called ``names`` of a status, as operations answer them."""
    return {"plugins": [plugin for plugin in plugins_of(status) if plugin["name"] in names]}


def _changes(answer: Mapping[str, Any]) -> str:
    parts = [
        f"{what} {', '.join(printable(str(name)) for name in answer[what])}"
        for what in ("started", "restarted", "stopped")
        if isinstance(answer.get(what), list) and answer[what]
    ]
    unchanged = answer.get("unchanged")
    parts.append(f"{len(unchanged) if isinstance(unchanged, list) else 0} unchanged")
    return "; ".join(parts)
