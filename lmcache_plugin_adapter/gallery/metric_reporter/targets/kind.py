# SPDX-License-Identifier: Apache-2.0
"""The interface that each kind of target implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
    from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading

    from .buffer import Batch


class Kind:
    """A kind of target: how to encode requests, and how to read answers.

    Args:
        target: The target's settings.
        headers: The headers of each request with a body.
        path: The path below the target's ``url``.
    """

    key: ClassVar[str]
    """The target's key in the settings."""

    def __init__(self, target: HttpTarget, headers: dict[str, str], path: str = "") -> None:
        self.target = target
        self.headers = headers
        self.path = path

    @property
    def shown(self) -> str:
        """The target for messages: its key and its address."""
        return f"{self.key} ({self.target.shown})"

    def encode(self, report: Reading) -> list[Batch]:
        """Return the batches of a report; called for every report, in order."""
        raise NotImplementedError

    def encode_end(self, time_ms: int, born: float) -> list[Batch]:  # noqa: ARG002 - for subclasses
        """Return the batches that end all series.

        Args:
            time_ms: The time of the end, in milliseconds since 1970.
            born: The same moment by the monotonic clock, in seconds.
        """
        return []

    def partly_refused(self, answer: Answer) -> tuple[int, str] | None:  # noqa: ARG002 - as above
        """Return how much of an accepted request was refused, and why; None: nothing."""
        return None
