# SPDX-License-Identifier: Apache-2.0
"""Load plugins: search for them, adopt what is found, and reload on request."""

from __future__ import annotations

import os
from functools import partial

from lmcache_plugin_adapter.contract import wire
from lmcache_plugin_adapter.contract.log_records import ERROR, INFO
from lmcache_plugin_adapter.contract.planner_pipe import write_message
from lmcache_plugin_adapter.contract.runtime_dir import CONFIG_NAME
from lmcache_plugin_adapter.contract.version import (
    __version__,
    installed_version,
    why_versions_differ,
)
from lmcache_plugin_adapter.messages.wording import uncapitalized

from .search import Search

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lmcache_plugin_adapter.contract.planned_plugin import SupervisorPlan
    from lmcache_plugin_adapter.supervisor.engine_connection import EngineConnection
    from lmcache_plugin_adapter.supervisor.handover import Handover
    from lmcache_plugin_adapter.supervisor.plugin_set import PluginSet
    from lmcache_plugin_adapter.supervisor.runtime_files import RuntimeFiles
    from lmcache_plugin_adapter.supervisor.services import Services

    from .auto_reload import AutoReload

    Answer = Callable[[dict[str, Any]], None]


class PluginLoader:
    """Fill a plugin set from searches.

    Args:
        services: The loop, the log and the children.
        plugins: The plugin set.
        handover: What the engine handed over.
        engine: The connection to the engine.
        files: The files in the runtime directory.
    """

    def __init__(
        self,
        services: Services,
        plugins: PluginSet,
        handover: Handover,
        engine: EngineConnection,
        files: RuntimeFiles,
    ) -> None:
        self._services = services
        self._plugins = plugins
        self._handover = handover
        self._engine = engine
        self._in_force = 0
        """The number of the search whose plan is in force; 0 before the first."""
        self._reloads: list[tuple[int, Answer]] = []
        self._later: list[Answer] = []
        """Requests that came while a reload ran: one more search serves all of them."""
        self._files = files
        self._auto_reload: AutoReload | None = None
        self._search = Search(services, self._plan, (handover.spec,), self._adopt, self._failed)

    def begin(self) -> None:
        """Start the first search."""
        self._search.begin()

    def reload(self, answer: Answer) -> None:
        """Search again, bring the plugins in line, and answer with what was done."""
        self._later.append(answer)
        if not self._reloads:
            self._begin_reload()

    def _begin_reload(self) -> None:
        requests, self._later = self._later, []
        if not requests:
            return
        try:
            number = self._search.start()
        except OSError as error:
            problem = f"Cannot search for plugins: {uncapitalized(error.strerror or '')}"
            self._services.events.log(ERROR, problem)  # nobody reads the answer to auto_reload
            self._send({"ok": False, "error": uncapitalized(problem)}, requests)
        else:
            self._reloads = [(number, answer) for answer in requests]

    def cancel(self) -> None:
        """End all searches, and start no more."""
        self._search.cancel()
        if self._auto_reload is not None:
            self._auto_reload.close()
        requests = [answer for _, answer in self._reloads] + self._later
        self._reloads, self._later = [], []
        self._send({"ok": False, "error": "the supervisor stops"}, requests)

    def _plan(self, fd: int, skip: frozenset[str]) -> None:
        """Run the planner, in the child: only if it is of the supervisor's version."""
        why = why_versions_differ(__version__, installed_version())
        if why is not None:
            write_message(fd, ("impossible", why))
            return
        from .child import run_planner

        root = config = None
        instance = self._files.instance
        if instance is not None:
            root = os.path.dirname(instance.path)
            config = instance.file(CONFIG_NAME)
        run_planner(fd, self._handover.read_spec(), config, root, skip)

    def _adopt(self, search: int, plan: SupervisorPlan) -> None:
        if self._services.stopping or search < self._in_force:
            return  # a newer search has a newer result
        self._files.keep_config()
        self._files.keep_user_files(plan)
        if search == self._in_force or not self._in_force:
            done = self._plugins.adopt(plan)  # the first result, or a hung location's later one
        else:
            done = self._plugins.reload(plan)
            counts = ", ".join(f"{len(names)} {what}" for what, names in done.items())
            self._services.events.log(INFO, f"Reloaded: {counts}")
        self._in_force = search
        self._watch(plan)
        self._answer(search, done)
        self._engine.send(wire.GRACE, self._plugins.longest_grace)
        if not len(self._plugins):
            text = f"No plugin runs on {self._handover.label}"
            self._services.events.log(INFO, text)

    def _watch(self, plan: SupervisorPlan) -> None:
        """Watch the locations for changes, if the settings request that."""
        if self._auto_reload is None:
            if plan.watched is None:
                return
            from .auto_reload import AutoReload  # only with the setting, as it takes memory

            self._auto_reload = AutoReload(self._services, lambda: self.reload(lambda _done: None))
        self._auto_reload.watch(plan.watched or ())

    def _failed(self, search: int, error: str) -> None:
        self._answer(search, {"ok": False, "error": error})

    def _answer(self, search: int, answer: dict[str, Any]) -> None:
        """Answer the requests for this search and for previous ones."""
        due = [send for asked, send in self._reloads if asked <= search]
        self._reloads = [pair for pair in self._reloads if pair[0] > search]
        self._send(answer, due)
        if due:
            self._begin_reload()

    def _send(self, answer: dict[str, Any], requests: list[Answer]) -> None:
        for send in requests:  # an error with one of them concerns no other
            self._services.loop.attempt(partial(send, answer))
