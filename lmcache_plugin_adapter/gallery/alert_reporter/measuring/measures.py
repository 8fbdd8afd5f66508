# SPDX-License-Identifier: Apache-2.0
"""The measures of an engine process: names, units, and how to read each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import psutil

from lmcache_plugin_adapter.linux.procfs import has_memory

from .cgroup import container_memory
from .disk import BackendDisk
from .gpu import Gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class Measure(NamedTuple):
    """A row of the table of measures."""

    unit: str
    """The unit of its values, such as ``bytes`` or ``%``, or empty for numbers."""
    meaning: str
    """The text for the documentation."""


MEASURES: dict[str, Measure] = {
    "memory_bytes": Measure("bytes", "Resident memory of the engine process."),
    "memory_percent": Measure(
        "%", "The same, in percent of the container's limit, or else of the machine's memory."
    ),
    "container_memory_percent": Measure(
        "%",
        "Memory of all processes of the container, without droppable file pages, in percent of its "
        "limit, at which the kernel kills processes. No value without a limit.",
    ),
    "cpu_percent": Measure("%", "CPU time; 100 is one core."),
    "descriptors": Measure("", "Open file descriptors."),
    "descriptors_percent": Measure("%", "The same, in percent of the limit (`ulimit -n`)."),
    "threads": Measure("", "Threads."),
    "read_bytes_per_second": Measure("bytes/s", "Bytes read from storage."),
    "write_bytes_per_second": Measure("bytes/s", "Bytes written to storage."),
    "gpu_memory_bytes": Measure("bytes", "GPU memory of the engine process on all GPUs."),
    "gpu_memory_percent": Measure(
        "%",
        "Used memory of the engine's fullest GPU, by all processes; of the fullest visible GPU if "
        "NVML does not list the engine.",
    ),
    "gpu_temperature_celsius": Measure("°C", "Temperature of the hottest GPU, chosen as above."),
    "gpu_ecc_errors": Measure(
        "", "Memory errors that ECC could not correct, since the driver was loaded."
    ),
    "gpu_ecc_corrected_errors": Measure("", "Memory errors that ECC has corrected."),
    "gpu_throttled": Measure(
        "",
        "1 if temperature or power supply have reduced a GPU's clocks, else 0. Power limits do not "
        "count.",
    ),
    "backend_disk_percent": Measure(
        "%", "Used space of the file system of LMCache's `local_disk`; of several, the fullest."
    ),
    "backend_disk_free_bytes": Measure("bytes", "Free space there."),
    "backend_disk_inodes_percent": Measure("%", "Used inodes there."),
    "requests_running": Measure("", "Running requests (`vllm:num_requests_running`)."),
    "requests_waiting": Measure("", "Queued requests (`vllm:num_requests_waiting`)."),
    "kv_cache_percent": Measure("%", "Used KV cache (`vllm:kv_cache_usage_perc`)."),
    "time_to_first_token_seconds": Measure(
        "s", "Time within which 95 % of the requests had their first token."
    ),
    "inter_token_latency_seconds": Measure("s", "The same for the time between two tokens."),
    "request_latency_seconds": Measure("s", "The same for whole requests."),
    "generation_tokens_per_second": Measure("", "Generated tokens."),
    "preemptions_per_second": Measure("", "Preempted requests."),
    "engine_unhealthy": Measure("", "1 if the engine is in any of the following states, else 0."),
    "engine_stopped": Measure(
        "", "1 if the process is stopped (SIGSTOP, a debugger, a frozen container)."
    ),
    "engine_unresponsive": Measure("", "1 if the engine does not answer in time (see `health`)."),
    "engine_stalled": Measure("", "1 if requests make no progress (see `health`)."),
}
"""Every measure that a rule may use."""

_ENGINE_STATES = {
    "engine_stopped": "stopped",
    "engine_unresponsive": "unresponsive",
    "engine_stalled": "stalled",
}

Values = dict[str, float]
"""The value of each measure that could be read."""


class Meter:
    """Read the measures that rules use.

    Args:
        pid: The engine process.
        wanted: The names of the measures.
        engine_state: Returns the engine's state (``engine_health.verdict.State``); called only if
            a rule uses it.
        log: Logs, once for each measure, why it cannot be read.
        disk_paths: The directories of LMCache's local disk backend.
    """

    def __init__(
        self,
        pid: int,
        wanted: Collection[str],
        engine_state: Callable[[], str],
        log: Callable[[str], None],
        disk_paths: list[str] | None = None,
    ) -> None:
        self._wanted = frozenset(wanted)
        self._engine_state = engine_state
        self._pid = pid
        self._log = log
        self._logged: set[str] = set()
        self._process: psutil.Process | None
        try:
            self._process = psutil.Process(pid)
        except psutil.Error:
            self._process = None
        gpu = any(name.startswith("gpu_") for name in self._wanted)
        self._gpu = Gpus(pid, self._wanted, log) if gpu else None
        disk = any(name.startswith("backend_disk_") for name in self._wanted)
        self._disk = BackendDisk(disk_paths or [], log) if disk else None
        self._before: dict[str, tuple[float, float]] = {}
        self._readers: Mapping[str, Callable[[psutil.Process], float | None]] = {
            "memory_bytes": lambda process: process.memory_info().rss,
            "memory_percent": self._memory_percent,
            "container_memory_percent": self._container_memory_percent,
            "cpu_percent": self._cpu_percent,
            "descriptors": lambda process: process.num_fds(),
            "descriptors_percent": self._descriptors_percent,
            "threads": lambda process: process.num_threads(),
            "read_bytes_per_second": lambda process: self._rate(
                "read", process.io_counters().read_bytes
            ),
            "write_bytes_per_second": lambda process: self._rate(
                "write", process.io_counters().write_bytes
            ),
        }

    @property
    def alive(self) -> bool:
        """Whether the engine process is alive: no zombie, and no other process with its pid."""
        process = self._process
        if process is None:
            return False
        try:
            return process.is_running() and process.status() not in (
                psutil.STATUS_ZOMBIE,
                psutil.STATUS_DEAD,
            )
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True

    @property
    def ends(self) -> bool:
        """Whether the engine process is gone, or exiting: it has released its memory already.

        The supervisor may stop plugins when the engine's connections close, before it has exited.
        """
        return not self.alive or self._process is None or not has_memory(self._process.pid)

    def read(self) -> Values:
        """Return the measures that can be read now."""
        values: Values = {}
        for name, reader in self._readers.items():
            value = self._try(name, reader) if name in self._wanted else None
            if value is not None:
                values[name] = float(value)
        if self._gpu is not None:
            values.update(self._gpu.read())
        if self._disk is not None:
            values.update(self._disk.read())
        if any(name.startswith("engine_") for name in self._wanted):
            state = self._engine_state()
            for name, meant in _ENGINE_STATES.items():
                values[name] = float(state == meant)
            values["engine_unhealthy"] = float(state != "ok")
            if state == "starting":
                # The engine may load, or may have hung since before a restart of this reporter.
                for name in ("engine_unhealthy", "engine_unresponsive", "engine_stalled"):
                    del values[name]
        return {name: value for name, value in values.items() if name in self._wanted}

    def _try(self, name: str, reader: Callable[[psutil.Process], float | None]) -> float | None:
        if self._process is None:
            return None
        try:
            return reader(self._process)
        except psutil.NoSuchProcess:
            return None
        except (psutil.AccessDenied, OSError, AttributeError) as error:
            if name not in self._logged:
                self._logged.add(name)
                self._log(f"Cannot measure {name!r}: {_reason(error)}; its rules stay quiet")
            return None

    def _memory_percent(self, process: psutil.Process) -> float:
        container = container_memory(self._pid)
        limit = container.limit if container is not None else psutil.virtual_memory().total
        return 100.0 * float(process.memory_info().rss) / limit

    def _container_memory_percent(self, _: psutil.Process) -> float | None:
        container = container_memory(self._pid)
        return None if container is None else 100.0 * container.used / container.limit

    def _cpu_percent(self, process: psutil.Process) -> float | None:
        times = process.cpu_times()
        rate = self._rate("cpu", times.user + times.system)
        return None if rate is None else 100.0 * rate

    @staticmethod
    def _descriptors_percent(process: psutil.Process) -> float | None:
        soft, _ = process.rlimit(psutil.RLIMIT_NOFILE)
        return 100.0 * process.num_fds() / soft if soft > 0 else None

    def _rate(self, what: str, total: float) -> float | None:
        """Return the increase per second since the last measurement; None at the first."""
        now = time.monotonic()
        then, before = self._before.get(what, (now, total))
        self._before[what] = now, total
        return (total - before) / (now - then) if now > then else None


def _reason(error: Exception) -> str:
    if isinstance(error, psutil.AccessDenied):
        return "not permitted"
    return str(getattr(error, "strerror", None) or error)
