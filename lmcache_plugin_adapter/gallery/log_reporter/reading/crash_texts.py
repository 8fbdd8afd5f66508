# SPDX-License-Identifier: Apache-2.0
"""Recognize lines without a level that explain a crash, and the lines that belong to them."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"\[rank\d{1,6}\]: ?|\[ *\d{1,9}\.\d{6}\] ")
"""PyTorch's prefix of each line of a crash, and the kernel's time."""

_TRACEBACK = re.compile(
    r"(?:[ |]*\+ Exception Group )?Traceback \(most recent call last\)|"
    r'(?:\w+\.)*RayTaskError\(\w+\): |  File "[^"]+", line \d+$'
)
"""The first line of a traceback, also of one that Ray quotes, and of a syntax error."""

_PYTHON = (
    r"Process [\w.:-]{1,200}:$|Exception in (?:thread|callback|Tkinter|ASGI) ?|"
    r"-- Process \d+ terminated with|--- Logging error ---|"
    r"Exception ignored in|(?:Unhandled|Uncaught) (?:exception|error)|"
    r"Task exception was never retrieved|"
    r"Fatal Python error|Timeout \([\d:.]+\)!$|(?:Current thread|Thread) 0x[\da-f]+ .*:$|"
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|ExceptionGroup|Timeout)"
    r"(?:: (?!-?\d[\d.e+-]*$)|(?<=KeyError): |$)|"  # a number alone is a value in a table
    r"(?:[a-z_]\w*\.)+(?:errors|exceptions|exc)\.[A-Z]\w*: |"
    r"[\w./-]{1,100}(?: [\w-]+)?: error: "
)
"""Python, its faulthandler, multiprocessing, asyncio and argparse."""

_NATIVE = (
    r"terminate called|libc\+\+abi: |Fatal glibc error|.{0,300}Assertion [`'].{0,300}[`'] failed|"
    r"(?:free|malloc|realloc|munmap_chunk|malloc_consolidate|mremap_chunk|calloc)\(\): |"
    r"double free|corrupted (?:size|double|unsorted)|!+ Segfault|"
    r"\*\*\* (?:SIG[A-Z]+ |Aborted|Error in |(?:stack|buffer|bit|invalid|longjmp) .*\*\*\*)|"
    r"={2,}\d+={2,} ?ERROR: |"
    r"thread '[^']*'.{0,40} panicked at|panic: |fatal error: |unexpected fault address |"
    r"(?:mpirun|prterun) noticed that process |"
    r"(?:\[[^\]]*\] )?Caught signal \d+|"
    r"(?:Received|Caught) (?:signal )?SIG(?!(?:TERM|INT) )[A-Z]+ |"
    r"Signal: [A-Z][\w ]+ \(\d+\)|\[[^\]]*\] \*\*\* Process received signal|"
    r"(?:.{0,200}\s)?(?:Segmentation fault|Bus error|Illegal instruction|"
    r"Floating point exception|Trace/breakpoint trap|Aborted)(?: +\(core dumped\)|$)|"
    r"(?:Segmentation fault|Killed$|Aborted$)|\S+: line \d+: +\d+ (?:Killed|Aborted|Terminated) "
)
"""The C library, C++, Rust, Go, sanitizers, UCX, MPI and shells."""

_KERNEL = (
    r"(?:Memory cgroup out of memory|Out of memory)[:,]|oom[-_]kill|\S.{0,40} invoked oom-killer|"
    r"Killed process \d+|.{1,40}\[\d+\]: segfault at |traps: .{1,60} (?:trap|general)|"
    r"NVRM: (?:Xid|.{0,80}(?:fallen off the bus|failed))|Kernel panic|"
    r"watchdog: BUG: |BUG: (?:unable to handle|kernel NULL|soft lockup|workqueue lockup|K[A-Z]+SAN|"
    r"KFENCE|Bad (?:page|rss)|scheduling while atomic|sleeping function|spinlock|stack guard)|"
    r".{0,40}\[Hardware Error\]|INFO: task .{1,60} blocked for more than |"
    r"(?:\S+: )?(?:Main process exited, code=(?:killed|dumped)|"
    r"A process of this unit has been killed|"
    r"Failed with result '(?:core-dump|signal|oom-kill|watchdog)')|"
    r"Process \d+ \(.{1,40}\) of user \d+ (?:dumped core|terminated abnormally)"
)
"""The kernel and systemd."""

_GPU = (
    r"(?:[A-Za-z_][\w.]*: )?(?:CUDA|NCCL|HIP|cuBLAS|cuDNN|CUBLAS|CUDNN|cuda|nccl) "
    r"(?:runtime |kernel )?[Ee]rror|"
    r"CUDA out of memory|Memory access fault by GPU|Failed: Cuda error|"
    r"(?:\(raylet[^)]*\) )?(?:A worker died or was killed|The node with node id)"
)
"""CUDA, ROCm and their libraries; Ray's messages on dead workers."""

_FATAL = re.compile(f"{_PYTHON}|{_NATIVE}|{_KERNEL}|{_GPU}")

_MORE = re.compile(
    r"(?:Current thread|Thread) 0x|Current thread's C stack|Extension modules:|PC: @|@ +0x|"
    r"<(?:truncated|invalid frame|cannot get)|Exception raised from |frame #\d|"
    r"CUDA kernel errors might|For debugging consider|Compile with `TORCH_USE_CUDA|"
    r"Device-side assert|Search for `cuda|note: |stack backtrace:|goroutine \d|={3,}|#\d+ |"
    r"During handling of the above exception|The above exception was the direct cause|"
    r"NCCL version|ncclInternalError|ncclSystemError|ncclUnhandledCudaError|ncclRemoteError|"
    r"Last error:|what\(\): |Caused by: |Python runtime state: |\*\*\* Check failure stack trace|"
    r"\[signal SIG|exit status \d+$|created by |"
    r"(?=[a-z][^\s(]{0,300}\.)[^\s(]{1,301}\((?:\*\w+\)[^\s(]{0,200}\()?.*\)$|"
    r"Call stack:$|Message: |Arguments: |"
    r"-{10,}|\S+ FAILED$|Failures:$|Root Cause |\[\d+\]:$"
)
"""Further lines of a crash that are not indented."""

_MESSAGE_FOLLOWS = re.compile(r"thread '[^']*'.{0,40} panicked at .*:$|Last error:$")


def without_prefix(text: str) -> str:
    """Return a line without PyTorch's prefix ``[rank0]:`` and without the kernel's time."""
    found = _PREFIX.match(text)
    return text if found is None else text[found.end() :]


def begins_traceback(bare: str) -> bool:
    """Tell whether a traceback of Python begins with this line, or at its end."""
    return _TRACEBACK.match(bare) is not None or bare.rstrip().endswith(
        "Traceback (most recent call last):"
    )


def is_crash(bare: str) -> bool:
    """Tell whether a line without a level explains a crash."""
    return begins_traceback(bare) or _FATAL.match(bare) is not None


def belongs_to_crash(bare: str, before: str) -> bool:
    """Tell whether a line that is not indented belongs to the crash whose last line was ``before``.

    A chained traceback is not meant: :func:`begins_traceback` finds it.
    """
    return (
        _MORE.match(bare) is not None or _MESSAGE_FOLLOWS.match(without_prefix(before)) is not None
    )
