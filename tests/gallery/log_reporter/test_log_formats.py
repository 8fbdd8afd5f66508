# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - log lines are as long as they are
"""Crash texts, other loggers, JSON and prefixes as they stand in people's logs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from test_log_parsing import BOUNDS, HEAD, TRACEBACK, local, of_each_line, one, records

from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Assembler
from lmcache_plugin_adapter.gallery.log_reporter.reading.json_records import JsonFields
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level
from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import LogLine

AT = local(2026, 11, 22, 7, 6, 56)
UTC = 1795331216 * 10**9

CRASHES = {
    "faulthandler": "Fatal Python error: Segmentation fault\n\n"
    'Thread 0x00007f1 (most recent call first):\n  File "a.py", line 1 in f\n\n'
    "Current thread 0x00007f2 (most recent call first):\n  <no Python frame>\n\n"
    "Extension modules: numpy, torch (total: 2)",
    "faulthandler 3.14": "Fatal Python error: Aborted\n\n"
    'Current thread\'s C stack trace (most recent call first):\n  Binary file "python"\n'
    "  <truncated rest of calls>",
    "watchdog": 'Timeout (0:00:10)!\nThread 0x00007f1 (most recent call first):\n  File "a"',
    "glibc free": "free(): invalid pointer",
    "glibc malloc": "malloc(): unaligned tcache chunk detected",
    "glibc list": "corrupted double-linked list",
    "glibc size": "corrupted size vs. prev_size while consolidating",
    "glibc munmap": "munmap_chunk(): invalid pointer",
    "glibc stack": "*** stack smashing detected ***: terminated",
    "glibc buffer": "*** buffer overflow detected ***: terminated",
    "glibc fatal": "Fatal glibc error: malloc.c:4189 (_int_malloc): assertion failed: x",
    "assert": "python3: malloc.c:2617: sysmalloc: Assertion `(old_top == 0)' failed.",
    "device assert": "/a/Index.cu:92: operator(): block: [0,0,0], thread: [1,0,0] "
    "Assertion `idx < n` failed.",
    "glog": "*** SIGSEGV (@0x0) received by PID 12 (TID 0x7f) from PID 0; stack trace: ***\n"
    "    @     0x7f01 (unknown)\n    @ 0x0 start",
    "absl": "*** SIGABRT received at time=1700000000 on cpu 5 ***\nPC: @     0x7f (unknown)  raise\n"
    "    @     0x7f01  (unknown)",
    "kineto": '!!!!!!! Segfault encountered !!!!!!!\n  File "<unknown>", line 0, in x',
    "c++": "terminate called after throwing an instance of 'c10::AcceleratorError'\n"
    "  what():  CUDA error: an illegal memory access\n"
    "CUDA kernel errors might be asynchronously reported at some other API call.\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n\n"
    "Exception raised from c10_cuda_check at CUDAException.cpp:44 (most recent call first):\n"
    "frame #0: c10::Error::Error(c10::SourceLocation) + 0x80",
    "shell": "/entrypoint.sh: line 12:    34 Segmentation fault      (core dumped) vllm serve m",
    "shell kill": "bash: line 1:  1234 Killed                  vllm serve m",
    "segv": "Segmentation fault (core dumped)",
    "killed": "Killed",
    "bus": "Bus error (core dumped)",
    "ucx": "[vm:12   :0:12] Caught signal 11 (Segmentation fault: address not mapped)\n"
    "==== backtrace (tid:     12) ====\n 0  libucs.so\n=================================",
    "rust": "thread 'main' panicked at src/lib.rs:5:6:\ncalled `unwrap()` on a `None` value\n"
    "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
    "group": '  + Exception Group Traceback (most recent call last):\n  |   File "a.py"\n'
    "  | ExceptionGroup: x (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
    "    | ValueError: 1\n    +------------------------------------",
    "chained": f"{TRACEBACK}\n\nDuring handling of the above exception, another exception "
    f"occurred:\n\n{TRACEBACK}",
    "syntax error": '  File "a.py", line 1\n    x = (\n        ^\nSyntaxError: never closed',
    "no encodings": "Fatal Python error: init_fs_encoding: failed\n"
    "Python runtime state: core initialized",
    "logging": f'--- Logging error ---\n{TRACEBACK}\nCall stack:\n  File "b.py", line 1, in f\n'
    "Message: 'x %s'\nArguments: ()",
    "interrupt": 'Traceback (most recent call last):\n  File "a.py"\nKeyboardInterrupt: terminated',
    "spawned": f"-- Process 0 terminated with the following error:\n{TRACEBACK}",
    "direct cause": f"{TRACEBACK}\n\nThe above exception was the direct cause of the following "
    'exception:\n\n  + Exception Group Traceback (most recent call last):\n  |   File "a.py"\n'
    "  | ExceptionGroup: x (1 sub-exception)\n  +-+---------------- 1 ----------------\n"
    "    | ValueError: 1\n    +------------------------------------",
    "Ray task": "ray.exceptions.RayTaskError(RuntimeError): ray::f() (pid=12, ip=10.0.0.1)\n"
    '  File "a.py", line 1, in f\nRuntimeError: x',
    "Ray task in a traceback": 'Traceback (most recent call last):\n  File "a.py"\n'
    "ray.exceptions.RayTaskError(ValueError): ray::f() (pid=1, ip=10.0.0.1)\n"
    '  File "b.py", line 2, in f\nValueError: x',
    "Ray actor": "ray.exceptions.ActorDiedError: The actor died.\n\tclass_name: W",
    "Triton": "triton.runtime.errors.OutOfResources: out of resource: shared memory",
    "NCCL": "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'x'",
    "torchrun": "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    "============================================================\nx.py FAILED\n"
    "------------------------------------------------------------\nFailures:\n"
    "  <NO_OTHER_FAILURES>\nRoot Cause (first observed failure):\n[0]:\n  exitcode  : 1",
    "Go": "panic: runtime error: invalid memory address\n[signal SIGSEGV: segmentation violation]\n\n"
    "goroutine 1 [running]:\nmain.(*T).f(0x0)\n\t/a.go:5 +0x1d\nmain.main()\n\t/a.go:9 +0x2\n"
    "created by main.g in goroutine 7\nexit status 2",
    "Go deadlock": "fatal error: all goroutines are asleep - deadlock!\n\n"
    "goroutine 1 [chan receive]:\nmain.main()\n\t/a.go:4 +0x30",
    "Java": 'Exception in thread "main" java.lang.X: y\n\tat a.B.c(B.java:1)\nCaused by: z\n\tat d.E',
    "core dump": "Process 43 (python3) of user 0 dumped core.",
    "systemd result": "vllm.service: Failed with result 'core-dump'.",
    "kernel bug": "BUG: unable to handle page fault for address: ffff888",
    "key": "KeyError: 151646",
    "kernel panic": "Kernel panic - not syncing: Fatal hardware error!",
    "machine check": "mce: [Hardware Error]: Machine check events logged",
    "hung task": "INFO: task python3:12 blocked for more than 120 seconds.",
    "GPU lost": "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
    "asyncio": f"Task exception was never retrieved\n{TRACEBACK}",
    "sglang": 'Scheduler hit an exception: Traceback (most recent call last):\n  File "a"\nOSError',
    "out of memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "bare": "RuntimeError: Engine core initialization failed. See root cause above.",
    "argparse": "vllm serve: error: unrecognized arguments: --x",
    "rocm": "Memory access fault by GPU node-1 (Agent handle: 0x5) on address 0x7f. Reason: x.",
    "oom": "Memory cgroup out of memory: Killed process 12 (python3) total-vm:1kB",
    "oom host": "Out of memory: Killed process 12 (VLLM::EngineCor) total-vm:1kB, anon-rss:1kB",
    "oom invoked": "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0",
    "oom cgroup": "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=python3,pid=12,uid=0",
    "kernel": "python3[12]: segfault at 0 ip 0000 sp 0000 error 4 in libcuda.so[7f+1]",
    "xid": "NVRM: Xid (PCI:0000:3b:00): 79, pid=12, name=python3, GPU has fallen off the bus.",
    "systemd": "vllm.service: Main process exited, code=killed, status=9/KILL",
    "sanitizer": "==12==ERROR: AddressSanitizer: heap-use-after-free on address 0x6",
}


@pytest.mark.parametrize(
    "prefix", ["", "(Worker_TP0 pid=2) ", "(RayWorkerWrapper pid=7, ip=10.0.0.2) ", "[rank0]: "]
)
@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_is_one_error(name: str, prefix: str) -> None:
    """Whole, after an INFO record, and while another process logs between its lines."""
    text = CRASHES[name]
    lines = of_each_line(prefix, f"{HEAD}\n{text}" if prefix[:1] != "[" else text).split("\n")
    noise = f"(APIServer pid=9) {HEAD}"
    data = "\n".join(part for line in lines for part in (line, noise))
    errors = [one for one in records(data.encode()) if one.level is Level.ERROR]
    assert len(errors) == 1
    bare = [line.removeprefix(prefix) for line in errors[0].text.split("\n")]
    assert "\n".join(bare).endswith(text)


def test_the_kernel_s_time_before_a_crash() -> None:
    """As ``dmesg`` writes it."""
    record = one(
        "[12345.678901] NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus."
    )
    assert record.level is Level.ERROR
    assert one("[12345.678901] usb 1-1: new device").level is Level.INFO


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (
            "[rank0]:[E1122 07:06:56.123456789 ProcessGroupNCCL.cpp:1895] [Rank 0] CUDA error: x",
            "CUDA kernel errors might be asynchronously reported.\n\nException raised from x:\nframe #0: f",
        ),
        (
            "F1122 07:06:56.123456 12 a.cc:3] Check failed: x == y (1 vs. 2)",
            "*** Check failure stack trace: ***\n    @ 0x7f google::LogMessage::Fail()",
        ),
    ],
)
def test_frames_after_a_fatal_line_of_glog(first: str, rest: str) -> None:
    """They belong to it, also while another process logs."""
    noise = f"(APIServer pid=9) {HEAD}"
    data = "\n".join(part for line in f"{first}\n{rest}".split("\n") for part in (line, noise))
    found = [one for one in records(data.encode()) if one.level is not Level.INFO]
    assert [one.text for one in found] == [f"{one(first).text}\n{rest}"]


@pytest.mark.parametrize(
    "text",
    [
        "Loading safetensors checkpoint shards",
        "*** hello ***",
        "Error count: 0",
        "No error: all is well",
        "Processed 3 requests",
        "KeyboardInterrupt",
        "CUDA graphs captured",
        "Threads: 5",
        "BUG: 12 requests are counted twice",
        "Received SIGTERM signal, shutting down",
        "Received SIGINT signal",
        "RequestTimeout: 60",
        "MaxAbsError: 0.001",
    ],
)
def test_what_is_no_crash(text: str) -> None:
    """It stays INFO."""
    assert one(text).level is Level.INFO


@pytest.mark.parametrize(
    ("line", "level", "text", "logger", "source", "time_ns"),
    [
        (
            "2026-11-22 07:06:56.123 | WARNING  | app.core:run:12 - disk | full",
            *(Level.WARNING, "disk | full", "app.core", "", AT + 123_000_000),
        ),
        ("2026-11-22 07:06:56.1 | SUCCESS  | a:b:1 - ok", Level.INFO, "ok", "a", "", AT + 10**8),
        ("2026-11-22T07:06:56.5Z [error    ] failed  k=1", *(Level.ERROR, "failed  k=1", "", ""), UTC + 5 * 10**8),
        ("2026-11-22 07:06:56 [info     ] started", Level.INFO, "started", "", "", AT),
        (
            "2026-11-22 07:06:56,123 - my.app - ERROR - broken - pipe",
            *(Level.ERROR, "broken - pipe", "my.app", "", AT + 123_000_000),
        ),
        ("2026-11-22 07:06:56,123 DEBUG my.app: x", Level.DEBUG, "my.app: x", "", "", AT + 123_000_000),
        ("2026-11-22 07:06:56,123 [WARNING] my.app: x", Level.WARNING, "my.app: x", "", "", AT + 123_000_000),
        ("[2026-11-22 07:06:56,123] ERROR in app: x", Level.ERROR, "in app: x", "", "", AT + 123_000_000),
        ("[2026-11-22 07:06:56 +0000] [12] [CRITICAL] WORKER TIMEOUT", Level.CRITICAL, "WORKER TIMEOUT", "", "", UTC),
        ("2026-11-22 07:06:56,123\tWARNING worker.py:12 -- x y", Level.WARNING, "x y", "", "worker.py:12", AT + 123_000_000),
        ("[2026-11-22 07:06:56,123 E 12 34] core.cc:5: x", Level.ERROR, "x", "", "core.cc:5", AT + 123_000_000),
        ("[2026-11-22 07:06:56 TP0] Prefill batch", Level.INFO, "Prefill batch", "", "", AT),
        ("[2026-11-22 07:06:56.123][1][error][main] no", Level.ERROR, "[main] no", "", "", AT + 123_000_000),
        ("2026/11/22 07:06:56 [warn] 12#12: x", Level.WARNING, "12#12: x", "", "", AT),
        ("WARNING:urllib3.connectionpool:Retrying", Level.WARNING, "Retrying", "urllib3.connectionpool", "", None),
        ("vm:12:34 [0] NCCL WARN Cuda failure", Level.WARNING, "vm:12:34 [0] NCCL WARN Cuda failure", "nccl", "", None),
        ("[E ProcessGroupNCCL.cpp:1025] Watchdog", Level.ERROR, "Watchdog", "", "ProcessGroupNCCL.cpp:1025", None),
        ("E0000 00:00:1795331216.123456      12 cuda.cc:1228] Failed", Level.ERROR, "Failed", "", "cuda.cc:1228", UTC + 123_456_000),
        ("2026-11-22 07:06:56.123456: E a/b.cc:3] x", Level.ERROR, "x", "", "a/b.cc:3", AT + 123_456_000),
        ("[ERROR] 2026-11-22 07:06:56 x", Level.ERROR, "x", "", "", AT),
        ("ERROR - 2026-11-22 07:06:56,123 - x", Level.ERROR, "x", "", "", AT + 123_000_000),
        ("[warn] x", Level.WARNING, "x", "", "", None),
        ("[07:06:56] ERROR    x     core.py:12", Level.ERROR, "x     core.py:12", "", "", None),
        ("[11/22/26 07:06:56] WARNING  x", Level.WARNING, "x", "", "", None),
        ("<3>x", Level.ERROR, "x", "", "", None),
        ("[Gloo] x", Level.INFO, "[Gloo] x", "", "", None),
        (
            "2026-11-22T07:06:56.123456789Z (EngineCore pid=5) ERROR 11-22 01:02:03 [a.py:1] x",
            *(Level.ERROR, "x", "", "a.py:1", UTC + 123_456_789),
        ),
    ],
)  # fmt: skip
def test_other_loggers(
    line: str, level: Level, text: str, logger: str, source: str, time_ns: int | None
) -> None:
    """Level, time, text, and as far as they are there logger and line of code."""
    record = one(line)
    assert (record.level, record.text) == (level, text)
    assert (record.logger, record.source) == (logger, source)
    assert time_ns is None or record.time_ns == time_ns


def test_logfmt_and_access_logs() -> None:
    """The whole line stays the text."""
    record = one('ts=2026-11-22T07:06:56Z caller=a.go:1 level=error msg="no \\"x\\""')
    assert (record.level, record.time_ns, record.format) == (Level.ERROR, UTC, "logfmt")
    assert record.text.startswith("ts=")
    record = one('10.0.0.1 - - [22/Nov/2026:07:06:56 +0000] "GET / HTTP/1.1" 500 2')
    assert (record.level, record.time_ns, record.format) == (Level.INFO, UTC, "access")


def test_the_prefix_of_vllm_stands_behind_its_process() -> None:
    """``VLLM_LOGGING_PREFIX`` is a part of the record's format, and the process comes before."""
    record = one("(EngineCore pid=5) P> ERROR 11-22 07:06:56 [a.py:1] x", prefix="P> ")
    assert (record.level, record.process, record.text) == (Level.ERROR, "EngineCore", "x")


@pytest.mark.parametrize(
    ("entry", "level", "text", "time_ns"),
    [
        ({"ts": 1795331216.123456, "level": "warn", "msg": "x"}, Level.WARNING, "x", UTC + 123_456_000),
        ({"time": 1795331216123, "severity": "ERROR", "message": "x"}, Level.ERROR, "x", UTC + 123_000_000),
        ({"@timestamp": "2026-11-22T07:06:56+0000", "log.level": "error", "message": "x"}, Level.ERROR, "x", UTC),
        ({"timestamp": "2026-11-22 08:06:56.5+01:00", "event": "x", "level": "critical"}, Level.CRITICAL, "x", UTC + 5 * 10**8),
        ({"message": {"a": 1}, "level": 40}, Level.ERROR, '{"a":1}', None),
        ({"message": ["a", "b"], "levelno": 30}, Level.WARNING, "a\nb", None),
        ({"message": 5, "level": "odd"}, Level.INFO, "5", None),
        ({"message": "x", "level": 3}, Level.ERROR, "x", None),
        ({"message": "x", "stack_trace": "Traceback"}, Level.ERROR, "x\nTraceback", None),
        ({"timestamp": "2026-11-22T07:06:56Z", "level": "ERROR", "fields": {"message": "x"}, "target": "a"}, Level.ERROR, "x", UTC),
        ({"timeUnixNano": "1795331216123000000", "severityText": "ERROR", "body": {"stringValue": "x"}}, Level.ERROR, "x", UTC + 123_000_000),
        ({"@timestamp": "2026-11-22T07:06:56Z", "log": {"level": "error"}, "message": "x", "error": {"stack_trace": "t"}}, Level.ERROR, "x\nt", UTC),
        ({"Timestamp": "2026-11-22T07:06:56Z", "Level": "Warning", "Message": "x", "Exception": "e"}, Level.WARNING, "x\ne", UTC),
        ({"@t": "2026-11-22T07:06:56Z", "@l": "Fatal", "@m": "x"}, Level.CRITICAL, "x", UTC),
        ({"message": "(EngineCore pid=5) ERROR 11-22 07:06:56 [a.py:1] x"}, Level.ERROR, "x", AT),
        ({"text": "t | y\nTraceback\n  E: 1\n", "record": {"message": "y", "exception": {"type": "E"}}}, Level.ERROR, "y\nTraceback\n  E: 1", None),
        ({"text": "y\n", "record": {"message": "y", "level": {"name": "ERROR", "no": 40}, "time": {"timestamp": 1795331216.0}}}, Level.ERROR, "y", UTC),
    ],
)  # fmt: skip
def test_json_layouts(entry: dict[str, Any], level: Level, text: str, time_ns: int | None) -> None:
    """Level, time and message under the usual names; messages that are no text."""
    record = one(json.dumps(entry))
    inner = "EngineCore" in str(entry)
    assert (record.level, record.text, record.format) == (level, text, "vllm" if inner else "json")
    assert time_ns is None or record.time_ns == time_ns


def test_other_fields_of_json_are_kept() -> None:
    """They are no part of the text."""
    record = one('{"message": "x", "request_id": "r-1", "n": {"a": 1}, "thread": 5, "e": null}')
    assert (record.text, record.extra) == ("x", {"request_id": "r-1", "n": '{"a":1}'})
    record = one('{"fields": {"message": "x", "k": 1}, "level": "INFO", "line_number": 3}')
    assert (record.text, record.extra, record.line) == ("x", {"fields.k": "1"}, 3)


def test_keys_of_one_s_own() -> None:
    """They come before the usual ones."""
    parser = Parser("", JsonFields(message=["a.b"], level=["sev"]))
    assembler = Assembler(_File, "/log", parser, BOUNDS)  # type: ignore[arg-type]
    assembler.feed(LogLine(b'{"a": {"b": "x"}, "sev": "E", "level": "error"}', 48, 0), 0.0, AT)
    (record,) = assembler.flush()
    assert (record.text, record.level) == ("x", Level.ERROR)


class _File:
    read_up_ns = 0


def test_json_of_several_lines() -> None:
    """As people print it; what is no record stays as it is."""
    entry = {"message": "x", "level": "error", "more": {"a": 1}}
    found = records((json.dumps(entry, indent=2) + "\nplain\n{\n  not json\n}\nend").encode())
    assert [(one.level, one.text) for one in found] == [
        (Level.ERROR, "x"),
        (Level.INFO, "plain"),
        (Level.INFO, "{\n  not json\n}"),
        (Level.INFO, "end"),
    ]


@pytest.mark.parametrize(
    ("prefix", "at"),
    [
        ("Nov 22 07:06:56 node-1 vllm[42]: ", AT),
        ("2026-11-22T07:06:56+0000 node-1 vllm[42]: ", UTC),
        ("2026-11-22T07:06:56.250000+00:00 node-1 vllm[42]: ", UTC + 250_000_000),
    ],
)
def test_the_prefix_of_journald(prefix: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time counts where it is the more precise one; its process where no other is named."""
    now = time.mktime((2026, 11, 22, 8, 0, 0, 0, 0, -1))
    monkeypatch.setattr(time, "time", lambda: now)
    plain, core = records(
        f"{prefix}plain\n{prefix}(EngineCore pid=7) ERROR 11-22 07:06:57 [a.py:1] x".encode()
    )
    assert (plain.text, plain.process, plain.pid, plain.time_ns) == ("plain", "vllm", 42, at)
    assert (core.text, core.level, core.process, core.pid) == ("x", Level.ERROR, "EngineCore", 7)
    assert core.time_ns == (at if at % 10**9 else AT + 10**9)
    (crash,) = records(of_each_line(prefix, TRACEBACK).encode())
    assert (crash.level, crash.text) == (Level.ERROR, TRACEBACK)


def test_lines_of_the_kernel_in_a_syslog_file() -> None:
    """The OOM killer's line is an error."""
    record = one("Nov 22 07:06:56 node-1 kernel: Out of memory: Killed process 12 (python3)")
    assert (record.level, record.process) == (Level.ERROR, "kernel")
