"""What fires, in a file: for the reporter after this one, should this one be killed.

Alertmanager ends by itself what is not sent again. A webhook does not: who was told that something
fires waits for a word that it has resolved.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter import kit

from .alerts import Alert, identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_VERSION = 1
_LIMIT = 4 << 20
"""A larger file is none of ours."""

_LAST_SECOND = 253402300800.0
"""The end of what a date can be."""


class _Saved(msgspec.Struct):
    version: int
    alerts: list[Alert]


class Remembered:
    """The file of one engine process's alerts. Trouble with it is said once, and is no harm.

    Args:
        directory: Where it stands; made if missing, for this user only.
        labels: Those of the engine process, by which its next reporter finds the file.
    """

    def __init__(self, directory: str, labels: Mapping[str, str]) -> None:
        self._directory = directory
        self._path = os.path.join(directory, f"{identity(labels)}.json")
        self._lock = -1
        self._last: list[Alert] = []
        self._said = False

    def load(self) -> list[Alert]:
        """Return what is left of the reporter before this one."""
        try:
            if not self._is_ours():
                return []
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                saved = msgspec.json.decode(file.read(_LIMIT), type=_Saved)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            self._say(error)
            return []
        self._last = [alert for alert in saved.alerts if _is_sound(alert)]
        return self._last if saved.version == _VERSION else []

    def save(self, alerts: Iterable[Alert]) -> None:
        """Replace the file at one stroke; nothing is written if nothing has changed."""
        now = list(alerts)
        if now == self._last:
            return
        scratch = f"{self._path}.new"
        try:
            if not self._is_ours():
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch if now else self._path)
            if now:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(scratch, flags, 0o600), "wb") as file:
                    file.write(msgspec.json.encode(_Saved(_VERSION, now)))
                os.replace(scratch, self._path)
        except (OSError, UnicodeError) as error:
            self._say(error)
        else:
            self._last = now

    def _is_ours(self) -> bool:
        """Tell whether no other reporter has the file; one with the same labels may."""
        if self._lock < 0:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            lock = os.open(f"{self._path}.lock", flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            except OSError:
                pass  # a file system without locks
            self._lock = lock
        return True

    def _say(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            why = error.strerror if isinstance(error, OSError) else str(error)
            kit.warning(
                f"Cannot remember in {self._path!r} what fires: {why}; should this reporter be "
                "killed, webhooks do not hear what has resolved (set 'state_directory')"
            )


def _is_sound(alert: Alert) -> bool:
    times = [alert.starts_at, alert.ends_at or 0.0, alert.expires_at or 0.0]
    return "alertname" in alert.labels and all(0 <= time < _LAST_SECOND for time in times)
