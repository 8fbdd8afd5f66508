"""Plugin metrics in vLLM's own ``/metrics``: files of prometheus_client's multiprocess mode.

Loaded only where the setting ``metrics`` is on. vLLM, in multiprocess mode,
adds up whatever files it finds in ``PROMETHEUS_MULTIPROC_DIR``; the supervisor
keeps two there. How they are written is prometheus_client's affair: the one
module that knows it is loaded from the engine's installation, without the
package around it.
"""

from __future__ import annotations

import os
import sys
import time

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.output.plugin_output import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer

    from .plugin import Plugin

TICK_SECONDS = 5.0
"""How often counts of lines and the supervisor's memory are brought up to date."""

MARK = "lmcacheplugins"
"""What the names of the files have in them."""

_BYTES_PER_PLUGIN = 8192
_LEAST_BYTES = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE")

STATE = "lmcache_plugin_state"
LAST_EXIT = "lmcache_plugin_last_exit_code"
MEMORY = "lmcache_plugin_supervisor_resident_memory_bytes"
RESTARTS = "lmcache_plugin_restarts"
LINES = "lmcache_plugin_output_lines"
DROPPED = "lmcache_plugin_output_lines_dropped"

HELP = {
    STATE: "1 for the state that the plugin is in, 0 for the others.",
    LAST_EXIT: "Exit code of the plugin's last run, or minus the number of the signal.",
    MEMORY: "Resident memory of the supervisor.",
    RESTARTS: "How often the plugin was started again by its restart policy.",
    LINES: "Lines that the plugin printed.",
    DROPPED: "Lines of the plugin that did not reach the log.",
}


class Metrics:
    """Keep the files of one supervisor.

    Args:
        loop: For the clock.
        plugins: Those that there are; iterated anew each time.
        directory: ``PROMETHEUS_MULTIPROC_DIR``.
        module: The file of ``prometheus_client.mmap_dict``.
        owner: Run and role: the files of a supervisor that was killed are
            continued by the one that takes its place.
        labels: Role, rank and replica, on every series.

    Raises:
        OSError: The files cannot be made.
    """

    def __init__(
        self,
        loop: Loop,
        plugins: Iterable[Plugin],
        directory: str,
        module: str,
        owner: str,
        labels: dict[str, str],
    ) -> None:
        self._loop = loop
        self._plugins = plugins
        self._labels = labels
        self._bases: dict[Plugin, list[float]] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._timer: Timer | None = None
        library: Any = _load(module)
        self._make_key = library.mmap_key
        self._paths = [f"{directory}/{kind}_{MARK}.{owner}.db" for kind in ("counter", _GAUGE)]
        size = _LEAST_BYTES + _BYTES_PER_PLUGIN * len(list(plugins))
        if not os.path.exists(self._paths[0]):
            _make(self._paths[0], size)
        _make(self._paths[1], size)  # in the place of states of before
        self._counters, self._gauges = map(library.MmapedDict, self._paths)
        self._tick()

    def changed(self, plugin: Plugin) -> None:
        """Write what is known of a plugin that changed its state."""
        name = printable(plugin.name)
        # The state that it is in comes last: whoever reads meanwhile finds it in no two.
        for state in sorted(State, key=lambda state: plugin.state is state):
            key = self._key(STATE, STATE, name, state.value)
            self._gauges.write_value(key, float(plugin.state is state), time.time())
        if plugin.last_exit is not None:
            key = self._key(LAST_EXIT, LAST_EXIT, name)
            self._gauges.write_value(key, float(plugin.last_exit), time.time())
        self._count(plugin, name)

    def close(self) -> None:
        """Remove the files."""
        if self._timer is not None:
            self._timer.cancel()
        for path in self._paths:
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody wiped the directory

    def _tick(self) -> None:
        now = time.time()
        plugins = list(self._plugins)
        names = {plugin.name for plugin in plugins}
        for plugin in plugins:
            if plugin in self._bases:
                self._count(plugin, printable(plugin.name))
            else:
                self.changed(plugin)
        for gone in [plugin for plugin in self._bases if plugin not in plugins]:
            del self._bases[gone]
            if gone.name not in names:
                for state in State:
                    key = self._key(STATE, STATE, printable(gone.name), state.value)
                    self._gauges.write_value(key, 0.0, now)
        self._gauges.write_value(self._key(MEMORY, MEMORY, ""), float(_resident()), now)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _count(self, plugin: Plugin, name: str) -> None:
        """Write counts; they go on where an earlier supervisor, or an earlier file, stopped."""
        keys = [self._key(what, f"{what}_total", name) for what in (RESTARTS, LINES, DROPPED)]
        bases = self._bases.get(plugin)
        if bases is None:
            bases = [self._counters.read_value(key)[0] for key in keys]
            self._bases[plugin] = bases
        output = plugin.output
        values = (plugin.restarts, output.lines, output.dropped)
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
"""A gauge of a living process: the collector bears it when such a file goes."""


def _load(path: str) -> object:
    from importlib.machinery import SourceFileLoader

    loader = SourceFileLoader(f"{__package__}._mmap_dict", path)
    module = type(sys)(loader.name)
    loader.exec_module(module)
    return module


def _make(path: str, size: int) -> None:
    """Make an empty file that takes its room on the disk: memory of a full disk kills who writes.

    It has its name only then: a file without content is an error to the collector.
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


def _resident() -> int:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(128).split()[1]) * _PAGE
