# SPDX-License-Identifier: Apache-2.0
"""Read and validate what a supervisor answers to a status request."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import printable
from lmcache_plugin_adapter.contract import plugin_status
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.run_token import pid_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .search import Address


class ShownPlugin(plugin_status.PluginStatus):
    """The status of one plugin, as commands show it."""

    @property
    def title(self) -> str:
        """The name, in printable form."""
        return printable(self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a command accepts for the plugin."""
        return self.name, os.path.basename(self.path), self.path

    def is_called(self, name: str) -> bool:
        """Return whether a name of the command line, such as a relative path, is the plugin's."""
        if name in self.names:
            return True
        return "/" in name and os.path.realpath(name) == os.path.realpath(self.path)

    @property
    def healthy(self) -> bool:
        """Whether the plugin is up and ready, or its last run succeeded and none is due."""
        if self.state in (State.EXITED, State.WAITING):
            return self.last_exit == 0 and self.reason is None
        return self.state is State.RUNNING and self.ready is not False


@dataclass(frozen=True)
class SupervisorStatus:
    """A supervisor's report of itself and its engine process; the names are those of its JSON.

    Attributes:
        address: Where its control socket is.
        version: Version of this package that the supervisor runs.
        supervisor_pid: Its pid in its own PID namespace.
        engine_pid: The engine process's pid in that namespace.
        identity: Role and rank, for people.
        role: Role of the engine process; None if it has none.
        worker_id: Rank in the replica; -1 on the scheduler.
        worker_count: Workers of the replica.
        dp_rank: Index of the replica.
        dp_size: Number of replicas.
        uptime: Seconds since the supervisor started.
        stopping: Whether the supervisor is shutting down.
        plugins: Plugins in the order of their paths.
    """

    address: Address
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
    plugins: tuple[ShownPlugin, ...]

    @property
    def sees_same_pids(self) -> bool:
        """Whether the supervisor is in the PID namespace of this process."""
        return self.address.peer_pid == self.supervisor_pid

    @property
    def is_in_this_container(self) -> bool:
        """Whether its run token begins with the PID namespace of this process."""
        return os.path.basename(self.address.path).split(".")[0] == pid_namespace()

    @property
    def label(self) -> str:
        """The engine process, for people."""
        return f"{self.identity} of engine {self.engine_pid}"


def with_reason(state: str, reason: str | None) -> str:
    """Return a state and the reason for it, such as ``failed: exited with code 125``."""
    if not reason:
        return state
    return reason if reason.startswith(f"{state} ") else f"{state}: {reason}"


def read_supervisor(address: Address, answer: Mapping[str, Any]) -> SupervisorStatus:
    """Validate an answer; ignore keys that a later version has added.

    Raises:
        KeyError: A key is missing.
        TypeError: A value has another type.
        ValueError: A state is not known.
    """
    fields = _read_fields(SupervisorStatus, answer)
    plugins = tuple(map(_read_plugin, answer["plugins"]))
    return SupervisorStatus(address=address, plugins=plugins, **fields)


def _read_plugin(answer: Mapping[str, Any]) -> ShownPlugin:
    fields = _read_fields(plugin_status.PluginStatus, answer)
    # Requests use these two, so they stay exact.
    fields |= {"name": str(answer["name"]), "path": str(answer["path"])}
    package = answer.get("package")  # older supervisors do not send it
    return ShownPlugin(
        package=package and (_text(package["name"]), _text(package["version"])), **fields
    )


def _read_fields(status: type, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of simple types, as the annotations of ``status`` declare them."""
    fields: dict[str, Any] = {}
    for name, read, optional in _fields_of(status):
        value = answer.get(name) if optional else answer[name]  # older supervisors have fewer
        fields[name] = None if optional and value is None else read(value)
    return fields


@functools.cache
def _fields_of(status: type) -> list[tuple[str, Callable[[object], Any], bool]]:
    """Return name, reader and optionality of the fields of simple types."""
    fields = ((name, kind.partition(" | ")) for name, kind in status.__annotations__.items())
    return [
        (name, _READERS[kind], optional != "")
        for name, (kind, _, optional) in fields
        if kind in _READERS
    ]


def _text(value: object) -> str:
    """Return text in printable form: it may hold sequences that control a terminal."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return printable(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is no whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is no number")
    return float(value)


_READERS: dict[str, Callable[[object], Any]] = {
    "bool": lambda value: value is True,
    "float": _number,
    "int": _whole,
    "State": State,
    "str": _text,
}
