# SPDX-License-Identifier: Apache-2.0
"""Plugin metrics as a text file, for the textfile collector of Prometheus' node_exporter.

Used where no vLLM serves ``/metrics``: beside LMCache's server, and on further nodes of an
engine. Loaded only with the setting ``metrics.textfile``.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.output.event_log import printable_name

from .series import COUNTERS, HELP, MARK, MEMORY, STATE, gauges_of, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer
    from lmcache_plugin_adapter.supervisor.plugin import Plugin

TICK_SECONDS = 15.0
"""Seconds between two updates, if no state changes."""

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class TextFile:
    """Write the file of one supervisor.

    Args:
        loop: The supervisor's loop.
        plugins: The plugins; iterated anew each time.
        plan: Where to write, and the labels of every series.
        owner: Run token and role: a supervisor that replaces a killed one
            continues its counters.
        warn: Logs a warning.
    """

    def __init__(
        self,
        loop: Loop,
        plugins: Iterable[Plugin],
        plan: PlannedMetrics,
        owner: str,
        warn: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._plugins = plugins
        self._labels = plan.labels
        self._warn = warn
        self._path = f"{plan.directory}/{MARK}.{owner}.prom"
        self._counts = _read_counts(self._path)
        self._bases: dict[Plugin, list[int]] = {}
        self._trouble = ""
        self._closed = False
        self._write()
        self._timer: Timer = loop.call_later(TICK_SECONDS, self._tick)

    def changed(self, _plugin: Plugin) -> None:
        """Write the file after all changes of this turn of the loop."""
        self._loop.call_soon(self._write)

    def close(self) -> None:
        """Remove the file."""
        self._closed = True
        self._timer.cancel()
        _remove(self._path)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._write()

    def _write(self) -> None:
        """Replace the file at once: the collector never reads a part of one."""
        if self._closed:
            return
        try:
            text = "".join(self._lines())
            _replace(self._path, text.encode())
            self._trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
            if trouble != self._trouble:
                self._trouble = trouble
                where = os.path.dirname(self._path)
                text = f"Cannot write metrics of plugins to '{printable_name(where)}': {trouble}"
                self._warn(f"{text}; the next attempt is in {TICK_SECONDS:g} s")

    def _lines(self) -> Iterator[str]:
        samples: dict[str, list[str]] = {name: [] for name in HELP}

        def add(metric: str, value: float, name: str = "", **more: str) -> None:
            of = {"plugin": name} if name else {}
            samples[metric].append(f"{self._series(metric, {**of, **more})} {value}\n")

        plugins = list(self._plugins)
        self._bases = {plugin: self._base(plugin) for plugin in plugins}
        for plugin in plugins:
            name = printable_name(plugin.name)
            for state in State:
                add(STATE, int(plugin.state is state), name, state=state.value)
            for metric, value in gauges_of(plugin):
                add(metric, value, name)
            counts = (plugin.restarts.count, plugin.output.lines, plugin.output.dropped)
            for metric, base, count in zip(COUNTERS, self._bases[plugin], counts):  # noqa: B905
                self._counts[self._series(metric, {"plugin": name})] = base + count
                add(metric, base + count, name)
        add(MEMORY, resident())
        for metric, lines in samples.items():
            if lines:
                kind, full = _kind(metric)
                yield f"# HELP {full} {HELP[metric]}\n# TYPE {full} {kind}\n"
                yield from lines

    def _base(self, plugin: Plugin) -> list[int]:
        """Return the counts of earlier runs under the plugin's name, in another supervisor too."""
        known = self._bases.get(plugin)
        if known is not None:
            return known
        of = {"plugin": printable_name(plugin.name)}
        return [self._counts.get(self._series(metric, of), 0) for metric in COUNTERS]

    def _series(self, metric: str, labels: Mapping[str, str]) -> str:
        pairs = {**self._labels, **labels}.items()
        text = ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in pairs)
        return f"{_kind(metric)[1]}{{{text}}}"


def _kind(metric: str) -> tuple[str, str]:
    return ("counter", f"{metric}_total") if metric in COUNTERS else ("gauge", metric)


def _read_counts(path: str) -> dict[str, int]:
    """Return the counters that a killed supervisor of the same engine left, by series."""
    counts = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                series, _, value = line.rpartition(" ")
                if "_total{" in series and value.strip().isdecimal():
                    counts[series] = int(value)
    except OSError:
        pass  # there was none
    return counts


def _replace(path: str, data: bytes) -> None:
    new = f"{path}.new"
    _remove(new)  # of a killed supervisor
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            os.fchmod(fd, 0o644)  # node_exporter is another user
        os.rename(new, path)
    except OSError:
        _remove(new)
        raise


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never written, or another program has removed it
