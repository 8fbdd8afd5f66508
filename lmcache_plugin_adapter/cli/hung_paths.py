# SPDX-License-Identifier: Apache-2.0
"""Search locations in a child process; skip a location whose file system does not answer."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from lmcache_plugin_adapter.contract.planner_pipe import HUNG_SECONDS, read_messages, write_message

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class _HungError(Exception):
    """The child made no progress; the text is its current location, if any."""


def patiently(
    work: Callable[[Callable[[str], None], frozenset[str]], Result],
    patience: float = HUNG_SECONDS,
) -> tuple[Result, list[str]]:
    """Call ``work(progress, skip)`` in a child process and return its result.

    A system call on a hung network mount cannot be interrupted. If ``work``
    makes no progress, its process is killed and left behind, and a new process
    skips the location.

    Args:
        work: Calls ``progress`` with a location before it reads the location, and
            ignores the locations in ``skip``. Its result must be picklable.
        patience: Seconds without progress after which a location counts as hung.

    Returns:
        The result, and the locations that did not answer.

    Raises:
        RuntimeError: ``work`` failed (its traceback is on stderr) or hung
            before its first location.
    """
    hung: list[str] = []
    while True:
        try:
            return _attempt(work, frozenset(hung), patience), hung
        except _HungError as error:
            location = str(error)
            if not location or location in hung:
                raise RuntimeError("cannot search for plugins: some path does not answer") from None
            hung.append(location)


def _attempt(
    work: Callable[[Callable[[str], None], frozenset[str]], Result],
    skip: frozenset[str],
    patience: float,
) -> Result:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _work_in_child(work, skip, write_end)
    os.close(write_end)
    try:
        result: Result = _result(read_end, patience)
        return result
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        # Do not wait: the process may be stuck in the kernel.
        os.waitpid(pid, os.WNOHANG)


def _work_in_child(
    work: Callable[[Callable[[str], None], frozenset[str]], Result], skip: frozenset[str], fd: int
) -> None:
    try:
        result = work(lambda location: write_message(fd, ("location", location)), skip)
        write_message(fd, ("result", pickle.dumps(result)))
    except BaseException:  # noqa: BLE001 - no code of the parent may run here
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _result(fd: int, patience: float) -> Any:
    data = b""
    location = ""
    while True:
        if not select.select([fd], [], [], patience)[0]:
            raise _HungError(location)
        part = os.read(fd, 1 << 16)
        if not part:
            raise RuntimeError("cannot search for plugins: the search failed")
        messages, data = read_messages(data + part)
        for kind, content in messages:
            if kind == "result":
                return pickle.loads(content)  # noqa: S301 - our own child
            location = content
