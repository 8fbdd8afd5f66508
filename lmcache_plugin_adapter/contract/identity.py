"""Who a process is for its plugins: role, worker rank, size of its replica."""

from __future__ import annotations

import enum

from .frozen import frozen


class Role(str, enum.Enum):
    """The part a process plays, as plugin file names and the environment spell it."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    SERVER = "server"

    @classmethod
    def read(cls, value: object) -> Role | None:
        """Return the role that ``value`` names, or None for None and the empty string.

        Hosts name the role differently over their versions: ``"worker"``,
        ``"WORKER"``, an enum member such as ``KVConnectorRole.WORKER`` (whose
        value may be a number) or its text. All are accepted.

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


@frozen
class ProcessIdentity:
    """What decides which plugins run in a process and what they are told.

    Attributes:
        role: None switches filtering by file name off and leaves the role
            variable empty, as LMCache's multiprocess server has it.
        worker_id: Rank within the replica, 0 to ``worker_count - 1``; -1 on
            the scheduler.
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
