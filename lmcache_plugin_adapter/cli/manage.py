"""``lmcache-plugins start, stop, restart, reload``: ask supervisors to do something."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.supervisors.client import ANSWER_SECONDS, ask_all, ask_each
from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey
from lmcache_plugin_adapter.messages.problem import quoted

from .cli_fleet import report_problems
from .console import USAGE_STATUS, complain, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.client import Reply
    from lmcache_plugin_adapter.cli.supervisors.survey import Fleet, PluginStatus, SupervisorStatus

RELOAD_SECONDS = 30.0
"""How long a search for plugins may take; slow file systems are slow."""

SETTLE_SECONDS = 0.3
"""How long a start that was waited for must hold."""

GOALS = {
    "start": frozenset({"running", "exited"}),
    "restart": frozenset({"running", "exited"}),
    "stop": frozenset({"stopped", "exited", "failed", "refused"}),
}
"""The states that are a success, once waited for."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        op: ``start``, ``stop`` or ``restart``.
        names: Plugins.
        everything: All that match.
        selector: On these engine processes only.
        wait: Until it is done.
        timeout: For so many seconds at most; None: as long as it takes.
    """

    op: str
    names: tuple[str, ...] = ()
    everything: bool = False
    selector: Selector = field(default_factory=Selector)
    wait: bool = False
    timeout: float | None = None


def manage(request: Request) -> int:
    """Start, stop or restart plugins; return the exit status."""
    if not request.names and not request.everything and not request.selector:
        complain("error", f"no plugin is named: name some, or {request.op} all with --all")
        return USAGE_STATUS
    fleet = survey(request.selector)
    if not fleet.supervisors:
        return _nothing_to_do(request, fleet)
    unknown = fleet.unknown(request.names)
    if unknown:
        return report_problems(fleet, unknown)
    targets = fleet.named(request.names)
    if not request.everything and not request.selector and _is_ambiguous(request, targets):
        return USAGE_STATUS
    by_supervisor: dict[int, tuple[SupervisorStatus, list[str]]] = {}
    for one, plugin in targets:
        by_supervisor.setdefault(id(one), (one, []))[1].append(plugin.name)
    asked = list(by_supervisor.values())
    replies = ask_each(
        [
            (one.found, {"op": request.op, "names": names, "wait": request.wait})
            for one, names in asked
        ],
        request.timeout if request.wait else ANSWER_SECONDS,
    )
    if request.wait and request.op != "stop":
        _look_again([one for one, _ in asked], replies)
    failed = False
    for (one, _), reply in zip(asked, replies, strict=True):
        failed |= not _show(request, one, reply)
    status = report_problems(fleet)
    return 1 if failed else status


def reload(selector: Selector) -> int:
    """Have plugins looked for anew; return the exit status."""
    fleet = survey(selector)
    if not fleet.supervisors:
        complain("error", fleet.nothing)
        report_problems(fleet)
        return 1
    replies = ask_all([one.found for one in fleet.supervisors], {"op": "reload"}, RELOAD_SECONDS)
    failed = False
    for one, reply in zip(fleet.supervisors, replies, strict=True):
        if reply.answer is not None:
            say(f"{one.label}: {_changes(reply.answer)}")
        else:
            failed = True
            complain("error", f"{one.label}: {reply.problem or 'it has ended'}")
    status = report_problems(fleet)
    return 1 if failed else status


def _nothing_to_do(request: Request, fleet: Fleet) -> int:
    """A stop where nothing runs is done: the hook of a container calls it in any case."""
    done = request.op == "stop" and not request.names and not fleet.failures
    if done:
        say(f"Nothing to stop: {fleet.nothing}")
    else:
        complain("error", fleet.nothing)
    return report_problems(fleet) if done else max(report_problems(fleet), 1)


def _is_ambiguous(request: Request, targets: list[tuple[SupervisorStatus, PluginStatus]]) -> bool:
    """Whether a name means plugins of several engine processes; says so."""
    for name in request.names:
        meant = [one for one, plugin in targets if name in plugin.names]
        if len(meant) > 1:
            where = ", ".join(one.label for one in meant[:4]) + (", …" if len(meant) > 4 else "")
            complain(
                "error",
                f"{quoted(name)} runs {len(meant)} times ({where}): choose with --engine, --role, "
                f"--rank or --dp, or {request.op} all of them with --all",
            )
            return True
    return False


def _show(request: Request, one: SupervisorStatus, reply: Reply) -> bool:
    """Say what a supervisor answered; False if it is not what was asked for."""
    if reply.answer is None:
        if reply.problem is None:
            say(f"{one.label}: has ended, and its plugins with it")
            return request.op == "stop"
        complain("error", f"{one.label}: {reply.problem}")
        return False
    well = True
    for plugin in reply.answer.get("plugins", ()):
        name, state = quoted(str(plugin["name"]))[1:-1], quoted(str(plugin["state"]))[1:-1]
        say(f"{name} on {one.label}: {state}")
        well &= not request.wait or state in GOALS[request.op]
    return well


def _look_again(asked: list[SupervisorStatus], replies: list[Reply]) -> None:
    """Replace the states by those after a moment: what cannot be executed fails after its start."""
    time.sleep(SETTLE_SECONDS)
    now = ask_all([one.found for one in asked], {"op": "status"})
    for reply, later in zip(replies, now, strict=True):
        if reply.answer is not None and later.answer is not None:
            named = {plugin["name"] for plugin in reply.answer["plugins"]}
            plugins = [p for p in later.answer["plugins"] if p["name"] in named]
            reply.answer["plugins"] = plugins


def _changes(answer: Mapping[str, Any]) -> str:
    parts = []
    for what in ("started", "restarted", "stopped"):
        names = answer.get(what) or ()
        if names:
            shown = ", ".join(quoted(str(name))[1:-1] for name in names)
            parts.append(f"{what} {shown}")
    unchanged = len(answer.get("unchanged") or ())
    parts.append(f"{unchanged} unchanged")
    return "; ".join(parts)
