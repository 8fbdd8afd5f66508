# SPDX-License-Identifier: Apache-2.0
"""Store the firing alerts, so that the next reporter can resolve them if this one is killed.

An alert in Alertmanager ends when nobody sends it again. A webhook's does not: its receivers wait
until a reporter sends them the resolved alert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.state_file import StateFile

from .alerts import Alert, identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_VERSION = 1
_LIMIT = 4 << 20
"""A larger file was not written by this plugin."""

_LAST_SECOND = 253402300800.0
"""The end of the year 9999, the last one that a date can hold."""


class _SavedAlerts(msgspec.Struct):
    version: int
    alerts: list[Alert]


class FiringFile:
    """The file with the alerts of one engine process. A failure is logged once and does no harm.

    Args:
        directory: Its directory; created if missing, for this user only.
        labels: The labels of the engine process, by which the next reporter finds the file.
    """

    def __init__(self, directory: str, labels: Mapping[str, str]) -> None:
        self._file = StateFile(directory, identity(labels))
        self._last: list[Alert] = []
        self._warned = False

    def load(self) -> list[Alert]:
        """Return the alerts that the previous reporter left."""
        try:
            data = self._file.read(_LIMIT) if self._file.try_lock() else None
            if data is None:
                return []
            saved = msgspec.json.decode(data, type=_SavedAlerts)
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            self._warn(error)
            return []
        self._last = [alert for alert in saved.alerts if _is_sound(alert)]
        return self._last if saved.version == _VERSION else []

    def save(self, alerts: Iterable[Alert]) -> None:
        """Replace the file atomically; write nothing if nothing has changed."""
        now = list(alerts)
        if now == self._last:
            return
        try:
            if not self._file.try_lock():
                return  # another reporter with the same labels holds it
            self._file.replace(msgspec.json.encode(_SavedAlerts(_VERSION, now)) if now else b"")
        except (OSError, UnicodeError) as error:
            self._warn(error)
        else:
            self._last = now

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            why = error.strerror if isinstance(error, OSError) else str(error)
            kit.warning(
                f"Cannot store in {self._file.path!r} which alerts fire: {why}; if this reporter "
                "is killed, webhooks do not learn what has resolved (set 'state_directory')"
            )


def _is_sound(alert: Alert) -> bool:
    times = [alert.starts_at, alert.ends_at or 0.0, alert.expires_at or 0.0]
    return "alertname" in alert.labels and all(0 <= time < _LAST_SECOND for time in times)
