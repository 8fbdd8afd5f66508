# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, N815 - NVML's names
"""Rules on the engine's own metrics, on GPUs, and on the disk of LMCache's backend."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alerting import (
    NAME,
    PLUGIN,
    Receiver,
    Start,
    end_in_order,
    settings_of,
    wait_line,
    wait_started,
)
from harness import Engine
from test_alert_settings import TARGET, names, plan
from vllm_stub import VllmStub

from lmcache_plugin_adapter.gallery.alert_reporter.measuring.disk import BackendDisk, disk_paths
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.engine_metrics import (
    EngineMetrics,
    Query,
    quantile,
)
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.gpu import Gpus
from lmcache_plugin_adapter.gallery.alert_reporter.rules import Rule


@pytest.fixture
def vllm() -> Iterator[VllmStub]:
    """Stands in for vLLM's server."""
    with VllmStub() as stub:
        yield stub


def test_a_full_queue_fires_and_resolves(
    start_reporter: Start, hook: Receiver, vllm: VllmStub
) -> None:
    """A named measure, and a metric that somebody names."""
    engine = start_reporter(
        {"role": "scheduler"},
        webhooks=[{"url": hook.url}],
        rules=[
            {"name": "Queue", "measure": "requests_waiting", "above": 10},
            {"name": "Cache", "measure": "kv_cache_percent", "above": 90, "for": 0.3},
            {
                "name": "Capacity",
                "metric": 'vllm:num_requests_waiting_by_reason{reason="capacity"}',
                "above": 6,
            },
        ],
        health={"metrics_url": vllm.url + "/metrics"},
    )
    wait_started(engine)
    assert hook.wait_for("firing", "Capacity")["value"] == 7.0
    vllm.values |= {"waiting": 25.0, "usage": 0.95}
    fired = hook.wait_for("firing", "Queue")
    assert (fired["measure"], fired["value"], fired["limit"]) == ("requests_waiting", 25.0, 10.0)
    assert hook.wait_for("firing", "Cache")["value"] == 95.0
    vllm.values |= {"waiting": 0.0, "usage": 0.1}
    hook.wait_for("resolved", "Queue")
    hook.wait_for("resolved", "Cache")
    end_in_order(engine)


def test_rules_on_metrics_without_an_address(start_reporter: Start, hook: Receiver) -> None:
    """One line says which setting is missing; the other rules go on."""
    engine = start_reporter(
        {"role": "scheduler"},
        webhooks=[{"url": hook.url}],
        rules=[
            {"name": "Queue", "measure": "requests_waiting", "above": 10},
            {"name": "Threads", "measure": "threads", "above": 0},
        ],
    )
    wait_line(engine, "Cannot measure 'requests_waiting': 'health.metrics_url' is not set")
    hook.wait_for("firing", "Threads")
    end_in_order(engine)


HISTOGRAM = """\
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.1"}} {a}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="1.0"}} {b}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf"}} {c}
vllm:time_to_first_token_seconds_count{{engine="0"}} {c}
vllm:time_to_first_token_seconds_sum{{engine="0"}} {s}
vllm:generation_tokens_total{{engine="0"}} {c}
vllm:generation_tokens_total{{engine="1"}} NaN
"""


class _Metrics(EngineMetrics):
    """Metrics that a test sets."""

    def __init__(self, **queries: Query) -> None:
        self.now = 1000.0
        self.notes: list[str] = []
        super().__init__(
            *("http://127.0.0.1:9/metrics", 1.0, True, queries, self.notes.append),
            clock=lambda: self.now,
        )

    def at(self, seconds: float, text: str) -> dict[str, float]:
        """Return the values of a text so many seconds later."""
        self.now += seconds
        series = list(self.parse(text))
        found = {}
        for key, window in self._windows.items():
            if window.take(self.now, series):
                value = window.value()
                if value is not None:
                    found[key] = value
        return found


def test_statistics_of_the_last_seconds() -> None:
    """A quantile, a mean and a rate need two readings, and start anew with the engine."""
    ttft = "vllm:time_to_first_token_seconds"
    metrics = _Metrics(
        p95=Query((ttft,), "p95", 60),
        mean=Query((ttft,), "mean", 60),
        rate=Query(("vllm:generation_tokens_total",), "per_second", 60),
    )
    assert metrics.at(0, HISTOGRAM.format(a=10, b=10, c=10, s=0.5)) == {}
    found = metrics.at(10, HISTOGRAM.format(a=10, b=110, c=110, s=50.5))
    assert found == {"p95": pytest.approx(0.955), "mean": 0.5, "rate": 10.0}
    # Nothing more for a minute: what was before it does not count.
    for _ in range(7):
        found = metrics.at(10, HISTOGRAM.format(a=10, b=110, c=110, s=50.5))
    assert found == {"p95": 0.0, "mean": 0.0, "rate": 0.0}
    assert metrics.at(10, HISTOGRAM.format(a=1, b=1, c=1, s=0.1)) == {}


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({}, 0.0),
        ({1.0: 0.0, float("inf"): 0.0}, 0.0),
        ({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 1.5),
        ({1.0: 0.0, float("inf"): 10.0}, 1.0),
    ],
)
def test_a_quantile(buckets: dict[float, float], expected: float) -> None:
    """As Prometheus computes it."""
    assert quantile(0.5, buckets) == expected


def test_one_process_reports_the_engine_s_metrics() -> None:
    """Each worker would fire the same alert."""
    rules = [
        {"name": "Queue", "measure": "requests_waiting", "above": 1},
        {"name": "Threads", "measure": "threads", "above": 1},
    ]
    found = plan({"webhooks": [TARGET], "rules": rules, "built_in_rules": False})
    assert names(found) == ["Threads"]  # it is a worker


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "give one of measure and metric"),
        ({"measure": "threads", "metric": "a"}, "give one of measure and metric"),
        ({"measure": "threads", "of": "p95"}, "of needs metric"),
    ],
)
def test_rules_that_contradict_themselves(wrong: dict[str, Any], text: str) -> None:
    """They are refused."""
    with pytest.raises(ValueError, match=text):
        Rule(name="x", above=1, **wrong)


@pytest.mark.parametrize(
    "metric", ["vllm:x", "up", 'a{b="c"}', 'a:b{c="d e",f="g"}', "9x", "a b", "a{b=c}", "a{"]
)
def test_names_of_metrics(metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad ones are named with their key, and the rule is left out."""
    rule = {"name": "X", "metric": metric, "above": 1}
    settings = {"webhooks": [TARGET], "rules": [rule], "built_in_rules": False}
    plan(settings)
    good = metric in ("vllm:x", "up", 'a{b="c"}', 'a:b{c="d e",f="g"}')
    said = capsys.readouterr()
    assert (".rules[0].metric'" in said.out + said.err) is not good


class _Nvml(types.ModuleType):
    """Two GPUs; the engine is on the second one."""

    temperature = (50, 91)
    reasons = (0x40, 0x04)
    supported = True

    def nvmlInit(self) -> None:
        """Begin."""

    def nvmlDeviceGetCount(self) -> int:
        """Return the number of GPUs."""
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        """Return a handle."""
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:
        """Return the processes on a GPU."""
        pid = os.getpid() if device == 1 else 1
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=1)]

    nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetComputeRunningProcesses

    def nvmlDeviceGetTemperature(self, device: int, _kind: int) -> int:
        """Return the temperature."""
        return self.temperature[device]

    def nvmlDeviceGetTotalEccErrors(self, device: int, kind: int, _counter: int) -> int:
        """Return the memory errors: 3 that ECC could not correct on the engine's GPU."""
        if not self.supported:
            raise RuntimeError("Not Supported")
        return (3 if kind == 1 else 8) if device == 1 else 99

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: int) -> int:
        """Return the reasons as older drivers do."""
        return self.reasons[device]


def test_the_health_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the engine's own GPU; a power limit is no fault; one failure leaves out one measure."""
    wanted = ("temperature_celsius", "ecc_errors", "ecc_corrected_errors", "throttled")
    nvml = _Nvml("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    notes: list[str] = []
    gpus = Gpus(os.getpid(), [f"gpu_{name}" for name in wanted], notes.append)
    assert gpus.read() == {
        "gpu_temperature_celsius": 91.0,
        "gpu_ecc_errors": 3.0,
        "gpu_ecc_corrected_errors": 8.0,
        "gpu_throttled": 0.0,
    }
    nvml.reasons, nvml.supported = (0, 0x20), False
    assert gpus.read() == {"gpu_temperature_celsius": 91.0, "gpu_throttled": 1.0}
    gpus.read()
    assert notes == [
        f"Cannot measure 'gpu_ecc_{kind}errors' of GPU {index}: Not Supported; it is left out"
        for index in (0, 1)
        for kind in ("", "corrected_")
    ]


def test_the_disk_of_the_backend(tmp_path: Path) -> None:
    """Of a directory that LMCache has not made yet, as ``df`` counts it."""
    notes: list[str] = []
    config = {"local_disk": f"file://{tmp_path}/a/b, {tmp_path}"}
    paths = disk_paths(config)
    assert paths == [f"{tmp_path}/a/b", str(tmp_path)]
    found = BackendDisk(paths, notes.append).read()
    assert 0 <= found["backend_disk_percent"] <= 100
    assert found["backend_disk_free_bytes"] > 0
    assert notes == []
    assert BackendDisk(disk_paths({}), notes.append).read() == {}
    text = "Cannot measure the disk of LMCache's backend: LMCache's 'local_disk' is not set"
    assert notes == [f"{text}; its rules stay quiet"]


def test_a_backend_without_space_fires(
    engine: Callable[..., Engine], plugin: Callable[..., Path], hook: Receiver
) -> None:
    """LMCache's own configuration says where it writes."""
    script = PLUGIN.replace(
        "sys.exit",
        "os.environ[KEY] = with_disk(os.environ[KEY])\n"
        "os.environ.pop(f'{KEY}_FILE', None)\nsys.exit",
    )
    plugin(f"{NAME}.py", f"{_WITH_DISK}\n{script}")
    rule = {"name": "Disk", "measure": "backend_disk_free_bytes", "below": 1 << 62}
    started = engine(settings_of(webhooks=[{"url": hook.url}], rules=[rule]))
    wait_started(started)
    assert hook.wait_for("firing", "Disk")["value"] > 0
    end_in_order(started)


_WITH_DISK = """
import json
import os

KEY = "LMCACHE_RUNTIME_PLUGIN_CONFIG"


def with_disk(config):
    return json.dumps({**json.loads(config), "local_disk": "file:///tmp/lmcache-disk/"})
"""
