"""What ``lmcache-plugins new`` can be asked for."""

from __future__ import annotations

from enum import Enum


class RoleWord(str, Enum):
    """Where a plugin runs, as its file's name says it."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    ALL = "all"
    SERVER = "server"


class Language(str, Enum):
    """What a plugin is written in."""

    PYTHON = "python"
    BASH = "bash"
