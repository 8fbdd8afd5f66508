# SPDX-License-Identifier: Apache-2.0
"""The operations that clients can request through the control socket."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.plugin_states import State

from .kept_lines import KeptLines
from .server import CLIENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop
    from lmcache_plugin_adapter.supervisor.output.line_framing import Block
    from lmcache_plugin_adapter.supervisor.plugin import Plugin
    from lmcache_plugin_adapter.supervisor.plugin_set import PluginSet

    from .client import Client

    Request = Mapping[str, Any]

_FOLLOWERS = CLIENTS * 3 // 4
"""How many clients may follow output at once: the others' places are for requests."""

_LOG_LINES = 100
"""Lines that ``logs`` returns if the request has no number."""


class OperationError(ValueError):
    """A request that cannot be met, with the reason."""


class Operations:
    """Handle requests; answer at once, or when the request is met.

    Args:
        loop: The supervisor's loop.
        plugins: The plugins.
        status: Returns the status of the supervisor.
        reload: Searches for plugins again and calls back with what was done.
        shutdown: Stops all plugins and the supervisor, as the engine's STOP does.
    """

    def __init__(
        self,
        loop: Loop,
        plugins: PluginSet,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[Callable[[dict[str, Any]], None]], None],
        shutdown: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._plugins = plugins
        self._get_status = status
        self._reload = reload
        self._shut_down = shutdown
        self._waiting: list[_Waiter] = []
        self._followers: dict[Client, bool] = {}
        """Clients that follow output, and whether that of all plugins, also of later ones."""
        self.handlers = {
            "status": self._status,
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "reload": self._reload_plugins,
            "logs": self._logs,
            "shutdown": self._shutdown,
        }
        plugins.on_change = self._changed
        plugins.on_add = self._added

    def _changed(self, plugin: Plugin) -> None:
        for waiter in self._waiting:
            if plugin in waiter.pending and waiter.is_done(plugin):
                waiter.pending.remove(plugin)
                self._loop.call_soon(self._answer_waiters)

    def _added(self, plugin: Plugin) -> None:
        for client, all_plugins in self._followers.items():
            if all_plugins:
                self._follow(plugin, client)

    def _answer_waiters(self) -> None:
        over = [waiter for waiter in self._waiting if not waiter.pending]
        self._waiting = [waiter for waiter in self._waiting if waiter.pending]
        for waiter in over:
            self._loop.attempt(waiter.answer)

    # --- operations -----------------------------------------------------------

    def _status(self, _request: Request, _client: Client) -> dict[str, Any]:
        return self._get_status()

    def _start(self, request: Request, client: Client) -> dict[str, Any] | None:
        plugins = self._select(request)
        self._check_not_stopping()
        self._plugins.stops.discard({plugin.planned.path for plugin in plugins})
        for plugin in plugins:
            plugin.start()
        return self._answer(request, client, plugins, _is_up_or_settled)

    def _stop(self, request: Request, client: Client) -> dict[str, Any] | None:
        plugins = self._select(request)
        self._plugins.stops.add({plugin.planned.path for plugin in plugins})
        for plugin in plugins:
            plugin.stop()
        return self._answer(request, client, plugins, lambda plugin: plugin.state.settled)

    def _restart(self, request: Request, client: Client) -> dict[str, Any] | None:
        plugins = self._select(request)
        self._check_not_stopping()
        self._plugins.stops.discard({plugin.planned.path for plugin in plugins})
        for plugin in plugins:
            plugin.stop()
            plugin.start()
        return self._answer(request, client, plugins, _is_up_or_settled)

    def _reload_plugins(self, _request: Request, client: Client) -> None:
        self._check_not_stopping()
        self._reload(client.send)

    def _shutdown(self, _request: Request, client: Client) -> dict[str, Any]:
        """Serve an engine that has lost its connection: the way to its STOP."""
        if client.user != os.getuid():
            raise OperationError("only the engine's own user may request 'shutdown'")
        self._shut_down()
        return {}

    def _logs(self, request: Request, client: Client) -> None:
        plugins = self._select(request)
        count = request.get("lines", _LOG_LINES)
        if not isinstance(count, int) or count < 0:
            raise OperationError(f"'lines' is {count!r}, not a whole number from 0")
        if request.get("follow") and not self._admits_follower(client):
            return
        kept = KeptLines([(plugin.name, plugin.output.ring) for plugin in plugins], count)
        names = [plugin.name for plugin in plugins]
        client.follows = bool(request.get("follow"))
        client.send_kept({"names": names, "lines": kept.count}, kept)
        if not client.follows:
            client.finish()
        if not client.open or not client.follows:
            return
        if request.get("all") is True:
            self._followers[client] = True
        for plugin in plugins:
            self._follow(plugin, client)

    def _admits_follower(self, client: Client) -> bool:
        if client in self._followers:
            raise OperationError("this client follows output already")
        if len(self._followers) >= _FOLLOWERS:
            client.fail(
                f"{_FOLLOWERS} clients follow this supervisor's output already: end one of them"
            )
            client.finish()
            return False
        self._followers[client] = False
        client.on_close.append(lambda: self._followers.__delitem__(client))
        return True

    def _follow(self, plugin: Plugin, client: Client) -> None:
        def send(now: float, block: Block) -> None:
            text = block.text.decode("utf-8", "replace")
            client.send_lines([(now, plugin.name, block.level, line) for line in text.split("\n")])

        plugin.output.followers.append(send)
        client.on_close.append(lambda: plugin.output.followers.remove(send))

    # --- inside ---------------------------------------------------------------

    def _check_not_stopping(self) -> None:
        if self._plugins.stopping:
            raise OperationError(
                "the supervisor is stopping, because its engine ended or because it was stopped"
            )

    def _select(self, request: Request) -> list[Plugin]:
        names = request.get("names")
        if request.get("all") is True:
            return list(self._plugins)
        if not isinstance(names, list) or not names:
            raise OperationError("no plugin is named; name some, or request all")
        return list(dict.fromkeys(map(self._find, dict.fromkeys(names))))

    def _find(self, name: object) -> Plugin:
        plugin = self._plugins.get(name) if isinstance(name, str) else None
        if plugin is not None:
            return plugin
        # Imported late: only a mistake pays for it.
        from lmcache_plugin_adapter.messages.near_miss import did_you_mean

        hint = did_you_mean(name, self._plugins.names, "; ")
        raise OperationError(f"unknown plugin {name!r}{hint}")

    def _answer(
        self,
        request: Request,
        client: Client,
        plugins: list[Plugin],
        is_done: Callable[[Plugin], bool],
    ) -> dict[str, Any] | None:
        def states() -> dict[str, Any]:
            return {"plugins": [{"name": p.name, "state": p.state.value} for p in plugins]}

        pending = {plugin for plugin in plugins if not is_done(plugin)}
        if not request.get("wait") or not pending:
            return states()
        self._waiting.append(_Waiter(pending, is_done, lambda: client.send(states())))
        return None


class _Waiter:
    """A request that is answered once each of its plugins has reached a state.

    A plugin that has reached the state may leave it again: otherwise two
    opposite requests at once could wait for ever.
    """

    def __init__(
        self,
        pending: set[Plugin],
        is_done: Callable[[Plugin], bool],
        answer: Callable[[], object],
    ) -> None:
        self.pending = pending
        self.is_done = is_done
        self.answer = answer


def _is_up_or_settled(plugin: Plugin) -> bool:
    if plugin.starts_again:
        return False
    if plugin.state is State.RUNNING:
        return plugin.ready is not False
    return plugin.state.settled or plugin.state in (State.BACKING_OFF, State.WAITING)
