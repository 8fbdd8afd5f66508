# SPDX-License-Identifier: Apache-2.0
"""GPU memory of a process, read through NVML."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PROCESS_KINDS = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")


class GpuMemory:
    """Read GPU memory; log each failure once.

    Args:
        pid: The engine process.
        log: Logs a line.
    """

    def __init__(self, pid: int, log: Callable[[str], None]) -> None:
        self._pid = pid
        self._log = log
        self._logged: set[str] = set()
        self._nvml: Any = None
        try:
            self._nvml = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
        except ImportError:
            self._report("pynvml is not installed (pip install nvidia-ml-py)")
            self._nvml = None
        except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
            self._report(str(error))
            self._nvml = None

    def read(self) -> dict[str, float]:
        """Return ``gpu_memory_bytes`` and ``gpu_memory_percent``, as far as NVML knows them."""
        if self._nvml is None:
            return {}
        own: list[int] = []
        percent: list[float] = []
        percent_own: list[float] = []
        for index in range(self._count()):
            try:
                device = self._nvml.nvmlDeviceGetHandleByIndex(index)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
                percent.append(100.0 * memory.used / memory.total)
            except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
                self._report(str(error), f"memory of GPU {index}", "it is left out")
                continue
            used = self._used_by_engine(index, device)
            if used is not None:
                own.append(used)
                percent_own.append(percent[-1])
        values: dict[str, float] = {}
        if own:
            values["gpu_memory_bytes"] = float(sum(own))
        if percent:
            values["gpu_memory_percent"] = max(percent_own or percent)
        return values

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
            self._report(str(error))
            return 0

    def _used_by_engine(self, index: int, device: Any) -> int | None:
        """Return the engine's bytes on a device; None if NVML does not list the engine there.

        In another PID namespace, NVML's pids differ from ours. Drivers may list processes of only
        one kind, or none.
        """
        found: int | None = None
        errors: list[str] = []
        for kind in _PROCESS_KINDS:
            try:
                for process in getattr(self._nvml, kind)(device):
                    if process.pid == self._pid:
                        found = max(found or 0, process.usedGpuMemory or 0)
            except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
                errors.append(str(error))
        if len(errors) == len(_PROCESS_KINDS):
            what = f"memory of the engine on GPU {index}"
            self._report(errors[0], what, "rules on gpu_memory_bytes do without that GPU")
        return found

    def _report(
        self, reason: str, what: str = "GPU memory", effect: str = "its rules stay quiet"
    ) -> None:
        if what not in self._logged:
            self._logged.add(what)
            self._log(f"Cannot measure {what}: {reason}; {effect}")
