# SPDX-License-Identifier: Apache-2.0
"""GPU memory where NVML has only some of it: what one question lacks is missing alone."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest

from lmcache_plugin_adapter.gallery.alert_reporter.measuring.gpu import Gpus


class Nvml(types.ModuleType):
    """An NVML with two GPUs, the process on both, that refuses some questions."""

    refused: frozenset[tuple[str, int]] = frozenset()

    def __getattr__(self, name: str) -> Any:
        """Answer what NVML is asked."""
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def ask(device: int = -1) -> Any:
            if (name, device) in self.refused:
                raise RuntimeError("Not Supported")
            return {
                "nvmlInit": None,
                "nvmlDeviceGetCount": 2,
                "nvmlDeviceGetHandleByIndex": device,
                "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=100 * device, total=1000),
                "nvmlDeviceGetComputeRunningProcesses": [
                    types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=300)
                ],
                "nvmlDeviceGetGraphicsRunningProcesses": [],
            }[name]

        return ask


LISTS = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")


@pytest.mark.parametrize(
    ("refused", "found", "said"),
    [
        (
            [(LISTS[1], 0), (LISTS[1], 1)],
            {"gpu_memory_bytes": 600.0, "gpu_memory_percent": 10.0},
            [],
        ),
        (
            [("nvmlDeviceGetMemoryInfo", 0)],
            {"gpu_memory_bytes": 300.0, "gpu_memory_percent": 10.0},
            ["Cannot measure memory of GPU 0: Not Supported; it is left out"],
        ),
        (
            [(name, device) for name in LISTS for device in (0, 1)],
            {"gpu_memory_percent": 10.0},
            [
                f"Cannot measure memory of the engine on GPU {device}: Not Supported; "
                "rules on gpu_memory_bytes do without that GPU"
                for device in (0, 1)
            ],
        ),
        (
            [("nvmlDeviceGetCount", -1)],
            {},
            ["Cannot measure the GPUs: Not Supported; rules on them stay quiet"],
        ),
    ],
)
def test_what_nvml_does_not_have_is_missing_alone(
    monkeypatch: pytest.MonkeyPatch,
    refused: list[tuple[str, int]],
    found: dict[str, float],
    said: list[str],
) -> None:
    """A kind of processes, a GPU, the processes at all, or everything; each is said once."""
    nvml = Nvml("pynvml")
    nvml.refused = frozenset(refused)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    notes: list[str] = []
    gpu = Gpus(os.getpid(), ["gpu_memory_bytes", "gpu_memory_percent"], notes.append)
    assert gpu.read() == gpu.read() == found
    assert notes == said
