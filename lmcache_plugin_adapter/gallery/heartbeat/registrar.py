# SPDX-License-Identifier: Apache-2.0
"""Keep one entry up to date, in a thread for each target: a slow target delays no other."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError

from .rhythm import PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict

    from .engine_view import EngineView, View
    from .rhythm import Rhythm

EXIT_SECONDS = 0.3
"""Seconds of the grace period reserved for the last log lines and the interpreter's exit."""

REMINDER = 300.0
"""Seconds after which a lasting problem is logged again."""


class RegistrationRefusedError(Exception):
    """The target answered, but refused the request; the text says why."""


class Messages(NamedTuple):
    """The texts about one target for the log."""

    entered: str
    """The engine was registered."""
    keep: str
    """The action of refreshing, after "Cannot"."""
    missing: str
    """The consequence while there has been no registration."""
    left: str
    """The engine was deregistered."""
    leave: str
    """The action of deregistering, after "Cannot"."""
    lapses: str = "the entry expires"
    """The consequence once ``ttl`` is over."""
    lapsed: str = "the entry has expired"
    """The consequence after ``ttl``."""


class RegistryTarget(Protocol):
    """Where an entry is kept.

    All methods raise ``RegistrationRefusedError`` or an error that ``failure`` words. They may
    take as long as a request may, and call ``wanted`` before each further request.
    """

    name: str
    """The target's name for messages: ``etcd``."""
    where: str
    """The target's address and the name of the entry, for messages."""
    messages: Messages
    rhythm: Rhythm
    keeps_nothing: bool
    """Whether the target has no entry that would have to be removed."""

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Report that the engine works, register it if needed; return whether it is registered."""

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Report that the registered engine does not work; return whether a request was sent."""

    def leave(self, timeout: float) -> None:
        """Remove the entry, within ``timeout`` seconds for each request."""


class Registrar:
    """Keep the entry at one target as the view of the engine demands.

    Args:
        target: The target.
        engine: The view of the engine.
        deregister_after: Seconds for which an unhealthy engine keeps its entry.
        remaining: Returns the seconds of the grace period that are left.
    """

    def __init__(
        self,
        target: RegistryTarget,
        engine: EngineView,
        deregister_after: float,
        remaining: Callable[[], float],
    ) -> None:
        self._target = target
        self._engine = engine
        self._deregister_after = deregister_after
        self._remaining = remaining
        interval = target.rhythm.interval
        self._backoff = kit.Backoff(initial=min(PAUSE / 1.2, interval), maximum=interval)
        self._may_be_entered = False
        self._is_entered = False
        self._has_worked = False
        self._problem = RegistrationProblem(target)
        self._thread = threading.Thread(target=self._run, name=target.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; tell whether it ended."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            view = self._engine.read()
            if view.closed:
                self._end(view)
                return
            try:
                wait = self._follow(view) - (time.monotonic() - begun)
            except Exception as error:  # noqa: BLE001 - without the thread, no entry is kept
                self._problem.report(_reason(error))
                wait = self._backoff.next()
            self._engine.wait(view.number, wait)

    def _follow(self, view: View) -> float:
        """Act on the view; return the seconds until the next check."""
        interval = self._target.rhythm.interval
        if view.verdict.healthy:
            # Before the first request: the target may act on it although no answer arrives.
            self._may_be_entered = True
            entered = self._target.refresh(view.verdict, self._is_wanted)
            self._worked()
            if entered and not self._is_entered:
                kit.info(self._target.messages.entered)
            self._is_entered = entered
        elif self._may_be_entered and not view.stale:
            # A dead engine does not recover.
            patience = 0.0 if view.verdict.state == "dead" else self._deregister_after
            left = patience - view.unhealthy_for
            if self._target.keeps_nothing or left > 0:
                if self._target.complain(view.verdict, self._target.rhythm.timeout):
                    self._worked()
                return interval if left <= 0 else min(interval, left)
            self._target.leave(self._target.rhythm.timeout)
            was_entered = self._has_worked
            self._worked()
            self._may_be_entered = self._is_entered = self._has_worked = False
            self._problem.forget()
            if was_entered:
                kit.info(f"{self._target.messages.left}: engine is {view.verdict.state}")
        return interval

    def _is_wanted(self) -> bool:
        view = self._engine.read()
        return view.verdict.healthy and not view.closed

    def _worked(self) -> None:
        self._has_worked = True
        self._backoff.reset()
        self._problem.over()

    def _end(self, view: View) -> None:
        """Remove the entry in what is left of the grace period."""
        if not self._may_be_entered:
            return
        messages, ttl = self._target.messages, self._target.rhythm.ttl
        if self._target.keeps_nothing and not (view.verdict.healthy or view.stale):
            try:
                self._target.complain(view.verdict, self._time())
            except Exception as error:  # noqa: BLE001 - the entry is removed all the same
                kit.warning(
                    f"Cannot report that the engine is {view.verdict.state}: {_reason(error)}"
                )
        pause = kit.Backoff(initial=0.2, maximum=1.0)
        while True:
            try:
                self._target.leave(self._time())
            except Exception as error:  # noqa: BLE001 - retried, or logged as the last line
                wait = pause.next()
                if isinstance(error, HttpError) and self._remaining() > wait + 2 * EXIT_SECONDS:
                    time.sleep(wait)
                    continue
                lapses = f"; {messages.lapses} in {ttl:g} s" if ttl is not None else ""
                kit.warning(f"Cannot {messages.leave}: {_reason(error)}{lapses}")
            else:
                if self._has_worked:
                    kit.info(messages.left)
            return

    def _time(self) -> float:
        """Return the seconds that a request may take during the grace period."""
        return max(0.1, min(self._target.rhythm.timeout, self._remaining() - EXIT_SECONDS))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RegistrationRefusedError) else failure(error)


class RegistrationProblem:
    """Log a problem with a target: at once, again while it lasts, and when it is over.

    Args:
        target: The target.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, target: RegistryTarget, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = target.name
        self._messages = target.messages
        self._ttl = target.rhythm.ttl
        self._clock = clock
        self._worked_at: float | None = None
        self._since: float | None = None
        self._logged: tuple[str, bool] | None = None
        self._logged_at = 0.0

    def report(self, text: str) -> None:
        """Log what is wrong, unless it has been logged before."""
        now = self._clock()
        if self._since is None:
            self._since = now
        expired = False
        messages = self._messages
        consequence = messages.missing
        if self._worked_at is not None and self._ttl is not None:
            left = self._worked_at + self._ttl - now
            expired = left <= 0
            consequence = messages.lapsed if expired else f"{messages.lapses} in {left:.0f} s"
        elif self._worked_at is not None:
            consequence = f"last success {now - self._worked_at:.0f} s ago"
        problem = (text, expired)
        if problem == self._logged and now - self._logged_at < REMINDER:
            return
        self._logged, self._logged_at = problem, now
        log = kit.error if expired or self._worked_at is None else kit.warning
        log(f"Cannot {messages.keep}: {text}; {consequence}; trying again")

    def over(self) -> None:
        """Log that the problem is over, if one was logged."""
        now = self._clock()
        if self._since is not None:
            kit.info(f"{self._name} has answered again, after {now - self._since:.1f} s")
        self._worked_at, self._since, self._logged = now, None, None

    def forget(self) -> None:
        """Forget the last success: there is no entry left that could expire."""
        self._worked_at = None
