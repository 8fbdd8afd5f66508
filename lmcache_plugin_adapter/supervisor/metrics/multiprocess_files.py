# SPDX-License-Identifier: Apache-2.0
"""Plugin metrics in vLLM's own ``/metrics``: files of prometheus_client's multiprocess mode.

Loaded only with the setting ``metrics``. In multiprocess mode, vLLM adds up all
files in ``PROMETHEUS_MULTIPROC_DIR``; the supervisor keeps two there.
prometheus_client defines their format: its one module that knows the format is
loaded from the engine's installation, without the rest of the package.
"""

from __future__ import annotations

import os
import sys
import time

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.output.event_log import printable_name

from .series import COUNTERS, HELP, MARK, MEMORY, STATE, gauges_of, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer
    from lmcache_plugin_adapter.supervisor.plugin import Plugin

TICK_SECONDS = 5.0
"""Seconds between two updates of line counts and of the supervisor's memory."""

_BYTES_PER_PLUGIN = 8192
_LEAST_BYTES = 1 << 16


class Metrics:
    """Write the files of one supervisor.

    Args:
        loop: The supervisor's loop.
        plugins: The plugins; iterated anew each time.
        plan: Where to write, and the labels of every series.
        module: The file of ``prometheus_client.mmap_dict``.
        owner: Run token and role: a supervisor that replaces a killed one
            continues its files.

    Raises:
        OSError: The files cannot be created.
    """

    def __init__(
        self,
        loop: Loop,
        plugins: Iterable[Plugin],
        plan: PlannedMetrics,
        module: str,
        owner: str,
    ) -> None:
        self._loop = loop
        self._plugins = plugins
        self._labels = plan.labels
        self._bases: dict[Plugin, list[float]] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._problem = ""
        library: Any = _load(module)
        self._make_key = library.mmap_key
        self._paths = [f"{plan.directory}/{kind}_{MARK}.{owner}.db" for kind in ("counter", _GAUGE)]
        size = _LEAST_BYTES + _BYTES_PER_PLUGIN * len(list(plugins))
        if not os.path.exists(self._paths[0]):
            _make(self._paths[0], size)
        _make(self._paths[1], size)  # replaces states of a previous supervisor
        self._counters, self._gauges = map(library.MmapedDict, self._paths)
        self._update()
        self._timer: Timer = loop.call_later(TICK_SECONDS, self._tick)

    def changed(self, plugin: Plugin) -> None:
        """Write the values of a plugin whose state has changed."""
        name = printable_name(plugin.name)
        # The current state is written last, so that no reader finds two.
        for state in sorted(State, key=lambda state: plugin.state is state):
            key = self._key(STATE, STATE, name, state.value)
            self._gauges.write_value(key, float(plugin.state is state), time.time())
        for metric, value in gauges_of(plugin):
            self._gauges.write_value(self._key(metric, metric, name), value, time.time())
        self._count(plugin, name)

    def close(self) -> None:
        """Remove the files."""
        self._timer.cancel()
        for path in self._paths:
            try:
                os.unlink(path)
            except OSError:
                pass  # another program has removed it

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        known, self._problem = self._problem, ""
        try:
            self._update()
        except Exception as error:
            self._problem = repr(error)
            if self._problem != known:
                raise  # the loop logs it, once

    def _update(self) -> None:
        now = time.time()
        plugins = list(self._plugins)
        names = {plugin.name for plugin in plugins}
        for plugin in plugins:
            if plugin in self._bases:
                self._count(plugin, printable_name(plugin.name))
            else:
                self.changed(plugin)
        for gone in [plugin for plugin in self._bases if plugin not in plugins]:
            del self._bases[gone]
            if gone.name not in names:
                for state in State:
                    key = self._key(STATE, STATE, printable_name(gone.name), state.value)
                    self._gauges.write_value(key, 0.0, now)
        self._gauges.write_value(self._key(MEMORY, MEMORY, ""), float(resident()), now)

    def _count(self, plugin: Plugin, name: str) -> None:
        """Write counts; they continue those of a previous supervisor or file."""
        keys = [self._key(what, f"{what}_total", name) for what in COUNTERS]
        bases = self._bases.get(plugin)
        if bases is None:
            bases = [self._counters.read_value(key)[0] for key in keys]
            self._bases[plugin] = bases
        output = plugin.output
        values = (plugin.restarts.count, output.lines, output.dropped)
        for key, base, value in zip(keys, bases, values):  # noqa: B905 - three each
            self._counters.write_value(key, base + value, time.time())

    def _key(self, metric: str, name: str, plugin: str, state: str = "") -> str:
        known = self._keys.get((name, plugin, state))
        if known is None:
            labels = dict(self._labels)
            if plugin:
                labels["plugin"] = plugin
            if state:
                labels["state"] = state
            known = str(self._make_key(metric, name, list(labels), labels.values(), HELP[metric]))
            self._keys[name, plugin, state] = known
        return known


_GAUGE = "gauge_livemax"
"""A gauge of a living process: the collector tolerates a file that disappears."""


def _load(path: str) -> object:
    from importlib.machinery import SourceFileLoader

    loader = SourceFileLoader(f"{__package__}._mmap_dict", path)
    module = type(sys)(loader.name)
    loader.exec_module(module)
    return module


def _make(path: str, size: int) -> None:
    """Create an empty file with its blocks allocated: a write to the map of a full disk kills.

    The file gets its name last: the collector fails on a file without content.
    """
    new = f"{path}.new"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise
    finally:
        os.close(fd)
