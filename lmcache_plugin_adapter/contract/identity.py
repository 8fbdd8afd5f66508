# SPDX-License-Identifier: Apache-2.0
"""The identity of a process: role, worker rank, size of the replica."""

from __future__ import annotations

import enum

from .frozen import frozen


class Role(str, enum.Enum):
    """The role of a process, as plugin file names and the environment spell it."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    SERVER = "server"

    @classmethod
    def read(cls, value: object) -> Role | None:
        """Return the role that ``value`` names, or None for None and the empty string.

        Versions of the hosts differ: ``"worker"``, ``"WORKER"``, an enum member
        such as ``KVConnectorRole.WORKER`` (whose value may be a number), or its
        text. All are accepted.

        Raises:
            ValueError: ``value`` names no role.
        """
        if value is None or isinstance(value, cls):
            return value
        texts = [str(value.name)] if isinstance(value, enum.Enum) else []
        texts.append(str(getattr(value, "value", value)))
        for text in texts:
            word = text.rpartition(".")[2].strip().lower()
            if not word:
                return None
            if word in cls._value2member_map_:
                return cls(word)
        accepted = ", ".join(repr(role.value) for role in cls)
        raise ValueError(f"unknown role {value!r}: accepted are {accepted} in any case, or None")


ALL_ROLES = "all"
"""The first word of a plugin's name that stands for every role."""

ROLE_WORDS = (*(role.value for role in Role), ALL_ROLES)
"""Every first word that makes a file name a plugin's name."""


@frozen
class ProcessIdentity:
    """The identity of a process: it decides which plugins run, and is in their environment.

    Attributes:
        role: None switches the filter by file name off and leaves the role
            variable empty, as in LMCache's multiprocess server.
        worker_id: Rank in the replica, 0 to ``worker_count - 1``; -1 on the scheduler.
        worker_count: Workers of the replica (tensor x pipeline x prefill
            context parallel size).
        dp_rank: Index of the data-parallel replica.
        dp_size: Number of data-parallel replicas.
    """

    role: Role | None
    worker_id: int
    worker_count: int
    dp_rank: int = 0
    dp_size: int = 1

    @property
    def label(self) -> str:
        """The identity in words: ``scheduler``, ``worker 1``, ``dp 1 worker 0``, ``server``."""
        words = [f"dp {self.dp_rank}"] if self.dp_size > 1 else []
        words.append("engine" if self.role is None else self.role.value)
        if self.role is Role.WORKER:
            words.append(str(self.worker_id))
        return " ".join(words)
