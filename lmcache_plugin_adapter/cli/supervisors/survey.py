# SPDX-License-Identifier: Apache-2.0
"""The state of all supervisors of this host, and the plugins that a command line selects."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import ExitStatus, print_problem, printable
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.messages.wording import counted

from .client import request_all
from .connection import awaits_supervisor
from .living import living_supervisors
from .search import find_supervisors
from .status_answer import read_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from lmcache_plugin_adapter.contract.identity import Role

    from .search import Address
    from .status_answer import ShownPlugin, SupervisorStatus


_HIDDEN_SECONDS = 2.0
"""How long a supervisor without a control socket may be one that starts or exits."""

_HIDDEN_PAUSE = 0.05


@dataclass(frozen=True)
class Selector:
    """Select engine processes; None accepts every value.

    Attributes:
        engine: Pid of the engine process.
        role: Role of the engine process.
        rank: Rank (worker id).
        dp: Data-parallel replica.
    """

    engine: int | None = None
    role: Role | None = None
    rank: int | None = None
    dp: int | None = None

    def __bool__(self) -> bool:
        return self != Selector()

    def matches(self, supervisor: SupervisorStatus) -> bool:
        """Return whether a supervisor's engine process is selected."""
        return (
            self.engine in (None, supervisor.engine_pid)
            and (self.role is None or self.role.value == supervisor.role)
            and self.rank in (None, supervisor.worker_id)
            and self.dp in (None, supervisor.dp_rank)
        )


@dataclass
class Survey:
    """The answers of all supervisors.

    Attributes:
        supervisors: Selected supervisors, by replica, rank and engine.
        problems: Directories that were skipped, with the reason.
        failures: Supervisors without a usable answer, with the reason.
        searched: All runtime directories that were searched.
        others: Number of supervisors that answered and are not selected.
        replaced: Supervisors that were killed and have no successor yet.
        elsewhere: Number of supervisors of other containers that are left alone.
    """

    supervisors: list[SupervisorStatus] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    others: int = 0
    replaced: list[str] = field(default_factory=list)
    elsewhere: int = 0

    @property
    def none_selected(self) -> bool:
        """Whether supervisors run, and the options select none of them."""
        return bool(self.others and not self.supervisors)

    @property
    def why_empty(self) -> str:
        """Why there is no supervisor to talk to."""
        if self.elsewhere:
            return f"no supervisor runs in this container ({self.elsewhere} in others)"
        if self.others:
            return f"the options select none of {counted(self.others, 'supervisor')}"
        if self.failures:
            return "no supervisor could be reached"
        return f"no supervisor runs (searched {', '.join(self.searched)})"

    def plugins(self, names: Sequence[str] = ()) -> list[tuple[SupervisorStatus, ShownPlugin]]:
        """Return the plugins called ``names``, or all plugins, each with its supervisor."""
        return [
            (supervisor, plugin)
            for supervisor in self.supervisors
            for plugin in supervisor.plugins
            if not names or any(_matches(name, plugin, supervisor) for name in names)
        ]

    def leave_other_containers(self) -> None:
        """Drop the supervisors of other PID namespaces that share a runtime directory."""
        found = len(self.supervisors)
        self.supervisors = [one for one in self.supervisors if one.is_in_this_container]
        self.elsewhere = found - len(self.supervisors)
        if self.elsewhere:
            what = "supervisor" if self.elsewhere == 1 else "supervisors"
            self.problems.append(
                f"{self.elsewhere} {what} of other containers left alone: "
                "--other-containers includes them"
            )

    def by_supervisor(self, names: Sequence[str]) -> list[tuple[SupervisorStatus, list[str]]]:
        """Return the supervisors of the plugins called ``names``, with these plugins' own names."""
        grouped: dict[int, tuple[SupervisorStatus, list[str]]] = {}
        for supervisor, plugin in self.plugins(names):
            grouped.setdefault(id(supervisor), (supervisor, []))[1].append(plugin.name)
        return list(grouped.values())

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Return a message for each name that no plugin has."""
        plugins = [plugin for _, plugin in self.plugins()]
        known = sorted({name for plugin in plugins for name in plugin.names})
        return [
            _unknown(name, known)
            for name in names
            if not any(plugin.is_called(name) for plugin in plugins)
        ]

    def print_problems(self, unknown: Sequence[str] = ()) -> int:
        """Print problems, failures and messages of :meth:`unknown`; return the exit status."""
        for text in self.problems:
            print_problem("warning", text)
        for text in (*self.failures, *unknown):
            print_problem("error", text)
        if unknown:
            return ExitStatus.USAGE
        return ExitStatus.FAILED if self.failures else ExitStatus.OK


def survey(
    selector: Selector, environ: Mapping[str, str] = os.environ, *, all_users: bool = True
) -> Survey:
    """Request the status of all supervisors of this host.

    Args:
        selector: Engine processes.
        environ: Names the runtime directory.
        all_users: Root: include the engines of other users.
    """
    until = time.monotonic() + _HIDDEN_SECONDS
    while True:
        result = _survey(selector, environ, all_users)
        if result.supervisors or result.others or result.failures:
            return result
        hidden = result.replaced or living_supervisors(environ)
        if not hidden:
            return result
        if time.monotonic() > until:  # not one that starts or exits just now
            result.failures += hidden
            return result
        time.sleep(_HIDDEN_PAUSE)


def _survey(selector: Selector, environ: Mapping[str, str], all_users: bool) -> Survey:
    search = find_supervisors(environ)
    result = Survey(problems=search.problems, searched=search.searched)
    addresses = search.addresses
    if not all_users:
        addresses = [address for address in addresses if address.uid == os.getuid()]
        others = sorted({address.uid for address in search.addresses} - {os.getuid()})
        if others:
            users = ", ".join(map(str, others))
            result.problems.append(f"skipped engines of user {users}: --all-users includes them")
    for reply in request_all(addresses, {"op": "status"}):
        if reply.problem is not None:
            result.failures.append(reply.problem)
        if reply.answer is None:
            if reply.problem is None and awaits_supervisor(reply.address):
                result.replaced.append(f"{reply.address} was killed, and another is about to start")
            continue
        try:
            status = read_supervisor(reply.address, reply.answer)
        except (KeyError, TypeError, ValueError) as error:
            result.failures.append(_why_unreadable(reply.address, reply.answer, error))
            continue
        if selector.matches(status):
            result.supervisors.append(status)
        else:
            result.others += 1
    result.supervisors.sort(key=lambda one: (one.dp_rank, one.worker_id, one.engine_pid))
    return result


def _why_unreadable(address: Address, answer: Mapping[str, Any], error: Exception) -> str:
    version = answer.get("version")
    if isinstance(version, str) and version != __version__:
        return (
            f"{address} runs lmcache-plugin-adapter {printable(version)[:40]}, this command is "
            f"{__version__}: restart the engine, or use the lmcache-plugins installed with it"
        )
    return f"the process that answers at '{address.path}' is no supervisor: {error!r} in its status"


def complete_plugin(prefix: str) -> list[str]:
    """Return the names of running supervisors' plugins that a shell can complete to."""
    try:
        plugins = survey(Selector()).plugins()
    except OSError:
        return []
    return sorted({plugin.title for _, plugin in plugins if plugin.title.startswith(prefix)})


def _matches(name: str, plugin: ShownPlugin, supervisor: SupervisorStatus) -> bool:
    """As the supervisor decides: a plugin's own name goes before another plugin's file name."""
    if any(name == other.name for other in supervisor.plugins):
        return name == plugin.name
    return plugin.is_called(name)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown plugin {quoted(name)}{did_you_mean(name, known, '; ')}"
