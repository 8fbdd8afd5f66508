# SPDX-License-Identifier: Apache-2.0
"""Let one process of a replica log a problem that all of its processes find.

Each supervisor keeps in its directory what it has logged. The next one reads the
directories of the other processes of its replica, under a lock.
"""

from __future__ import annotations

import fcntl
import os
import time

from lmcache_plugin_adapter.contract.run_token import engine_lives
from lmcache_plugin_adapter.contract.runtime_dir import REPORTED_FILE
from lmcache_plugin_adapter.linux.procfs import read_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LOCK_SECONDS = 1.0
_LOCK_PAUSE = 0.005


def claim(directory: str, texts: Iterable[str]) -> dict[str, str]:
    """Claim problems for this process.

    Args:
        directory: The directory of its supervisor.
        texts: The problems.

    Returns:
        Of each problem that another process has claimed: which process.
    """
    root, name = os.path.split(directory)
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        _lock(fd)
        found: dict[str, str] = {}
        for other in os.listdir(root):
            if is_same_replica(name, other) and engine_lives(other):
                found.update(dict.fromkeys(_read(f"{root}/{other}"), _label(other)))
        wanted = dict.fromkeys(map(_on_one_line, texts))
        own = [text for text in wanted if text not in found]
        if own:
            with open(f"{directory}/{REPORTED_FILE}", "a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in own)
    except OSError:
        return {}
    finally:
        os.close(fd)
    return {text: found[line] for text in texts if (line := _on_one_line(text)) in found}


def is_same_replica(name: str, other: str) -> bool:
    """Tell whether two directories are of two processes of one replica.

    The processes of a replica have different labels, and one is the parent of the
    other, or both have the same parent.
    """
    mine, its = _label(name), _label(other)
    if mine == its or _replica(mine) != _replica(its):
        return False
    engines = [name.split(".")[1:2], other.split(".")[1:2]]
    pids = [int(words[0]) for words in engines if words and words[0].isdigit()]
    if len(pids) != 2:
        return False
    processes = [read_process(pid) for pid in pids]
    parents = [0 if process is None else process.parent for process in processes]
    return (
        pids[0] == pids[1]
        or parents[0] == pids[1]
        or parents[1] == pids[0]
        or (parents[0] == parents[1] and parents[0] > 1)
    )


def _label(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ")


def _replica(label: str) -> str:
    words = label.split(" ")
    return words[1] if words[0] == "dp" else ""


def _on_one_line(text: str) -> str:
    return repr(text)


def _read(directory: str) -> list[str]:
    try:
        with open(f"{directory}/{REPORTED_FILE}", encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, ValueError):
        return []  # it has logged nothing, or is being removed


def _lock(fd: int) -> None:
    """Wait for the lock; a problem that is logged twice is better than a plugin that waits."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(_LOCK_PAUSE)
        else:
            return
