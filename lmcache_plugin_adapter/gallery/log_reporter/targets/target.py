# SPDX-License-Identifier: Apache-2.0
"""The base of the targets of log records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record


class TargetUnavailableError(Exception):
    """The target did not accept the records now; a retry may succeed.

    Args:
        reason: The reason, to follow a colon.
        retry_after: Seconds of the pause that the target asked for.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RecordsRefusedError(Exception):
    """The target will never accept these records.

    Args:
        reason: The reason, to follow a colon.
        records: How many records it refused; None: all of them.
        too_large: Whether a smaller batch may be accepted.
    """

    def __init__(self, reason: str, records: int | None = None, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.records = records
        self.too_large = too_large


class LogTarget:
    """A server that receives log records.

    Args:
        name: Kind and address for messages, without credentials.
        timeout: Seconds for one batch.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; return once the target has confirmed them.

        Args:
            records: At least one record.
            timeout: Seconds for the whole call.

        Raises:
            TargetUnavailableError: A retry may succeed.
            RecordsRefusedError: A retry is useless.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection, even if a batch is in flight."""
