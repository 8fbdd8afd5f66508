# SPDX-License-Identifier: Apache-2.0
"""The GPUs of a process, read through NVML: memory, temperature, memory errors, throttling."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_PROCESS_KINDS = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")


_SLOWED = 0x08 | 0x20 | 0x40 | 0x80
"""Reasons of NVML for reduced clocks that are faults: hardware slowdown, temperature (by software
and by hardware), power brake. Power limits and idle clocks are none."""

_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
"""Newer and older name."""

_CORRECTED, _UNCORRECTED, _SINCE_START = 0, 1, 0
"""Kinds of memory errors, and the counter since the driver was loaded."""


class Gpus:
    """Read the GPUs of an engine process, or all visible ones if NVML does not list the process.

    Each failure is logged once.

    Args:
        pid: The engine process.
        wanted: The names of the measures.
        log: Logs a line.
    """

    def __init__(self, pid: int, wanted: Collection[str], log: Callable[[str], None]) -> None:
        self._pid = pid
        self._log = log
        self._logged: set[str] = set()
        self._readers: dict[str, Callable[[Any], float]] = {
            "gpu_temperature_celsius": lambda device: self._nvml.nvmlDeviceGetTemperature(
                device, 0
            ),
            "gpu_ecc_errors": lambda device: self._ecc(device, _UNCORRECTED),
            "gpu_ecc_corrected_errors": lambda device: self._ecc(device, _CORRECTED),
            "gpu_throttled": lambda device: float(bool(self._reasons(device) & _SLOWED)),
        }
        self._readers = {name: one for name, one in self._readers.items() if name in wanted}
        self._memory = any(name.startswith("gpu_memory_") for name in wanted)
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
        """Return the values, as far as NVML knows them; of several GPUs the worst."""
        if self._nvml is None:
            return {}
        bytes_own: list[int] = []
        found: dict[str, list[tuple[bool, float]]] = {}
        """By measure: whether the GPU is the engine's, and its value."""
        for index in range(self._count()):
            try:
                device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
                what = "memory of" if self._memory else ""
                self._report(str(error), f"{what} GPU {index}".lstrip(), "it is left out")
                continue
            used = self._used_by_engine(index, device)
            if self._memory:
                try:
                    memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
                    percent = 100.0 * memory.used / memory.total
                except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
                    self._report(str(error), f"memory of GPU {index}", "it is left out")
                    percent = None
                if percent is not None:
                    found.setdefault("gpu_memory_percent", []).append((used is not None, percent))
                    bytes_own += [] if used is None else [used]
            for name, reader in self._readers.items():
                try:
                    value = float(reader(device))
                except Exception as error:  # noqa: BLE001 - NVML has its own exceptions
                    self._report(str(error), f"{name!r} of GPU {index}", "it is left out")
                    continue
                found.setdefault(name, []).append((used is not None, value))
        values: dict[str, float] = {}
        if bytes_own:
            values["gpu_memory_bytes"] = float(sum(bytes_own))
        for name, pairs in found.items():
            of_engine = [value for own, value in pairs if own]
            values[name] = max(of_engine or [value for _, value in pairs])
        return values

    def _ecc(self, device: Any, kind: int) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEccErrors(device, kind, _SINCE_START))

    def _reasons(self, device: Any) -> int:
        newer = getattr(self._nvml, _REASONS[0], None)
        return int((newer or getattr(self._nvml, _REASONS[1]))(device))

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
        if len(errors) == len(_PROCESS_KINDS) and self._memory:
            what = f"memory of the engine on GPU {index}"
            self._report(errors[0], what, "rules on gpu_memory_bytes do without that GPU")
        return found

    def _report(
        self, reason: str, what: str = "the GPUs", effect: str = "rules on them stay quiet"
    ) -> None:
        if what not in self._logged:
            self._logged.add(what)
            self._log(f"Cannot measure {what}: {reason}; {effect}")
