"""How a supervisor is called: what the bootstrap hands to it."""

from __future__ import annotations


class Launch:
    """How the supervisor was called.

    Attributes:
        link: One end of a socket pair; the engine holds the other.
        pidfd: The engine's pidfd, or -1.
        spec: A descriptor with the launch spec.
        engine: The engine's pid.
        engine_start: Its start time, in clock ticks since boot.
        run_id: The token of the run.
        label: The identity for people, such as ``worker 0``.
        previous: The supervisor that this one replaces, or 0.
        again: Whether earlier supervisors of this process may still be
            ending: their plugins must be gone before ours start.
    """

    def __init__(
        self,
        link: int,
        pidfd: int,
        spec: int,
        engine: int,
        engine_start: int,
        run_id: str,
        label: str,
        previous: int,
        again: bool,
    ) -> None:
        self.link = link
        self.pidfd = pidfd
        self.spec = spec
        self.engine = engine
        self.engine_start = engine_start
        self.run_id = run_id
        self.label = label
        self.previous = previous
        self.again = again
