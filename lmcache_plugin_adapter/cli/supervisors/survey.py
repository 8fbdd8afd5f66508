"""All supervisors of this host as they answer for status, and which of their plugins are meant."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract import plugin_status
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import quoted

from .client import ask_all, find

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from lmcache_plugin_adapter.contract.identity import Role

    from .client import Found


class PluginStatus(plugin_status.PluginStatus):
    """The status of one plugin, as commands show it."""

    @property
    def title(self) -> str:
        """Return its name as it can be shown."""
        return quoted(self.name)[1:-1]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called in a command."""
        return self.name, os.path.basename(self.path), self.path


@dataclass(frozen=True)
class SupervisorStatus:
    """What a supervisor says of itself and its engine process; names as in its JSON.

    Attributes:
        found: Where it is.
        version: Of this package.
        supervisor_pid: As it knows itself.
        engine_pid: As it knows the engine process.
        identity: Role and rank for people.
        role: Of the engine process; None: it has none.
        worker_id: Rank in the replica; -1 on the scheduler.
        worker_count: Workers of the replica.
        dp_rank: Index of the replica.
        dp_size: Number of replicas.
        uptime: Seconds since the supervisor started.
        stopping: It is about to end.
        plugins: In the order of their paths.
    """

    found: Found
    version: str
    supervisor_pid: int
    engine_pid: int
    identity: str
    role: str | None
    worker_id: int
    worker_count: int
    dp_rank: int
    dp_size: int
    uptime: float
    stopping: bool
    plugins: tuple[PluginStatus, ...]

    @property
    def sees_same_pids(self) -> bool:
        """Whether its pids are ours: it is in the same PID namespace."""
        return self.found.peer_pid == self.supervisor_pid

    @property
    def label(self) -> str:
        """Return the engine process for people."""
        return f"{self.identity} of engine {self.engine_pid}"


@dataclass(frozen=True)
class Selector:
    """Which engine processes are meant; None leaves it open.

    Attributes:
        engine: The engine process's pid.
        role: Its role.
        rank: Its rank (worker id).
        dp: Its data-parallel replica.
    """

    engine: int | None = None
    role: Role | None = None
    rank: int | None = None
    dp: int | None = None

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.engine, self.role, self.rank, self.dp))

    def takes(self, one: SupervisorStatus) -> bool:
        """Whether an engine process is meant."""
        return (
            self.engine in (None, one.engine_pid)
            and (self.role is None or self.role.value == one.role)
            and self.rank in (None, one.worker_id)
            and self.dp in (None, one.dp_rank)
        )


@dataclass
class Fleet:
    """What answered.

    Attributes:
        supervisors: Those that are meant, by engine and rank.
        problems: What was passed over, and why.
        failures: Supervisors that could not be asked, and why.
        places: Where was looked.
        others: How many answered that are not meant.
    """

    supervisors: list[SupervisorStatus] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    others: int = 0

    @property
    def nothing(self) -> str:
        """Say that there is no supervisor to talk to."""
        if self.others:
            return f"none of {self.others} supervisors is meant by the options"
        if self.failures:
            return "no supervisor could be asked"
        return f"no supervisor runs (looked in {', '.join(self.places)})"

    def named(self, names: Sequence[str]) -> list[tuple[SupervisorStatus, PluginStatus]]:
        """Return the plugins that ``names`` mean; all of them if there are no names."""
        return [
            (one, plugin)
            for one in self.supervisors
            for plugin in one.plugins
            if not names or any(_means(name, plugin, one) for name in names)
        ]

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Say of each name that means no plugin what might have been meant."""
        known = {name for one in self.supervisors for p in one.plugins for name in p.names}
        return [_unknown(name, sorted(known)) for name in names if name not in known]


def survey(selector: Selector, environ: Mapping[str, str] = os.environ) -> Fleet:
    """Ask all supervisors of this host for their status."""
    search = find(environ)
    fleet = Fleet(problems=search.problems, places=search.places)
    for reply in ask_all(search.found, {"op": "status"}):
        if reply.problem is not None:
            fleet.failures.append(reply.problem)
        if reply.answer is None:
            continue
        try:
            one = read_status(reply.found, reply.answer)
        except (KeyError, TypeError, ValueError) as error:
            fleet.failures.append(
                f"what answers at '{reply.found.path}' is no supervisor: {error!r} in its status"
            )
            continue
        if selector.takes(one):
            fleet.supervisors.append(one)
        else:
            fleet.others += 1
    fleet.supervisors.sort(key=lambda one: (one.dp_rank, one.worker_id, one.engine_pid))
    return fleet


def read_status(found: Found, answer: Mapping[str, Any]) -> SupervisorStatus:
    """Check and take over an answer; what a later version adds is left out.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
        ValueError: A state is not known.
    """
    return SupervisorStatus(
        found=found,
        version=_text(answer["version"]),
        supervisor_pid=_whole(answer["supervisor_pid"]),
        engine_pid=_whole(answer["engine_pid"]),
        identity=_text(answer["identity"]),
        role=None if answer["role"] is None else _text(answer["role"]),
        worker_id=_whole(answer["worker_id"]),
        worker_count=_whole(answer["worker_count"]),
        dp_rank=_whole(answer["dp_rank"]),
        dp_size=_whole(answer["dp_size"]),
        uptime=_number(answer["uptime"]),
        stopping=answer["stopping"] is True,
        plugins=tuple(_read_plugin(plugin) for plugin in answer["plugins"]),
    )


def _read_plugin(answer: Mapping[str, Any]) -> PluginStatus:
    package = answer.get("package")  # older supervisors do not report it
    fields: dict[str, Any] = {
        "name": str(answer["name"]),
        "path": str(answer["path"]),
        "package": package and (_text(package["name"]), _text(package["version"])),
        "state": State(answer["state"]),
    }
    for name, kind in plugin_status.PluginStatus.__annotations__.items():
        if name not in fields:
            fields[name] = _read_field(kind, answer[name])
    return PluginStatus(**fields)


def _read_field(kind: str, value: object) -> object:
    """Check a value against a field's annotation, such as ``int | None``."""
    if value is None and kind.endswith(" | None"):
        return None
    read = {"str": _text, "int": _whole, "float": _number}
    return read[kind.removesuffix(" | None")](value)


def _text(value: object) -> str:
    """Return text as it can be shown: what controls a terminal is escaped."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return quoted(value)[1:-1]


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is no whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is no number")
    return float(value)


def _means(name: str, plugin: PluginStatus, one: SupervisorStatus) -> bool:
    """As the supervisor takes it: a plugin's own name goes before another's file name."""
    if any(name == other.name for other in one.plugins):
        return name == plugin.name
    return name in plugin.names


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown plugin {quoted(name)}{did_you_mean(name, known, '; ')}"
