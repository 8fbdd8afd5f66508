"""Keeps one entry: one thread for each target, so that a slow one holds up no other."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import httpx

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.target import failure

from .settings import PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.health import Verdict

    from .engine_view import Board, Notice
    from .settings import Rhythm

WORDS = 0.3
"""Seconds of the grace period that are kept for the last words and the interpreter's end."""

REMINDER = 300.0
"""Seconds after which a trouble that lasts is said again."""


class RefusedError(Exception):
    """The target answered, but did not do what it was asked; the text says why."""


class Words(NamedTuple):
    """What is said of a target: it was entered, cannot be kept, is not, was left, cannot be.

    And what comes of an entry that nobody refreshes: after ``ttl``, and when that is over.
    """

    entered: str
    keep: str
    missing: str
    left: str
    leave: str
    lapses: str = "the entry expires"
    lapsed: str = "the entry has expired"


class Target(Protocol):
    """Where an entry is kept.

    All methods raise ``RefusedError``, or what ``failure`` words. They may take as long as a
    request may, and ask ``wanted`` before each further request.
    """

    name: str
    """For messages: ``etcd``."""

    where: str
    """For messages: its address, and what the entry is called there."""

    words: Words

    rhythm: Rhythm

    keeps_nothing: bool
    """Whether there is nothing to take back of an engine that does not work."""

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Say that the engine works, register it if it is not; return whether it is now."""

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Say that the engine does not work, it is still registered; return whether it was said."""

    def leave(self, timeout: float) -> None:
        """Take the entry back, with so many seconds for a request."""


class Keeper:
    """Follows the board and keeps the entry as it says.

    Args:
        target: Where.
        board: What the engine's state is.
        deregister_after: Seconds for which an engine that does not work keeps its entry.
        remaining: Says how many seconds there are left to end.
    """

    def __init__(
        self,
        target: Target,
        board: Board,
        deregister_after: float,
        remaining: Callable[[], float],
    ) -> None:
        self._target = target
        self._board = board
        self._deregister_after = deregister_after
        self._remaining = remaining
        interval = target.rhythm.interval
        self._backoff = kit.Backoff(initial=min(PAUSE / 1.2, interval), maximum=interval)
        self._may_be_entered = False
        self._is_entered = False
        self._has_worked = False
        self._trouble = Trouble(target)
        self._thread = threading.Thread(target=self._run, name=target.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the end; tell whether it came."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            notice = self._board.read()
            if notice.closed:
                self._end(notice)
                return
            try:
                wait = self._follow(notice) - (time.monotonic() - begun)
            except Exception as error:  # noqa: BLE001 - a thread that dies would keep no entry
                self._trouble.say(_words(error))
                wait = self._backoff.next()
            self._board.wait(notice.number, wait)

    def _follow(self, notice: Notice) -> float:
        """Do what the notice asks for; return in how many seconds to look again."""
        interval = self._target.rhythm.interval
        if notice.verdict.healthy:
            # Before the first request: it may be carried out though no answer comes.
            self._may_be_entered = True
            entered = self._target.refresh(notice.verdict, self._is_wanted)
            self._worked()
            if entered and not self._is_entered:
                kit.info(self._target.words.entered)
            self._is_entered = entered
        elif self._may_be_entered and not notice.stale:
            # A dead engine does not recover.
            patience = 0.0 if notice.verdict.state == "dead" else self._deregister_after
            left = patience - notice.unhealthy_for
            if self._target.keeps_nothing or left > 0:
                if self._target.complain(notice.verdict, self._target.rhythm.timeout):
                    self._worked()
                return interval if left <= 0 else min(interval, left)
            self._target.leave(self._target.rhythm.timeout)
            was_entered = self._has_worked
            self._worked()
            self._may_be_entered = self._is_entered = self._has_worked = False
            self._trouble.forget()
            if was_entered:
                kit.info(f"{self._target.words.left}: engine is {notice.verdict.state}")
        return interval

    def _is_wanted(self) -> bool:
        notice = self._board.read()
        return notice.verdict.healthy and not notice.closed

    def _worked(self) -> None:
        self._has_worked = True
        self._backoff.reset()
        self._trouble.over()

    def _end(self, notice: Notice) -> None:
        """Take the entry back in what is left of the grace period."""
        if not self._may_be_entered:
            return
        words, ttl = self._target.words, self._target.rhythm.ttl
        if self._target.keeps_nothing and not (notice.verdict.healthy or notice.stale):
            try:
                self._target.complain(notice.verdict, self._time())
            except Exception as error:  # noqa: BLE001 - the last word comes all the same
                kit.warning(
                    f"Cannot tell that the engine is {notice.verdict.state}: {_words(error)}"
                )
        pause = kit.Backoff(initial=0.2, maximum=1.0)
        while True:
            try:
                self._target.leave(self._time())
            except Exception as error:  # noqa: BLE001 - there is time, or it is the last word
                wait = pause.next()
                if isinstance(error, httpx.HTTPError) and self._remaining() > wait + 2 * WORDS:
                    time.sleep(wait)
                    continue
                lapses = f"; {words.lapses} in {ttl:g} s" if ttl is not None else ""
                kit.warning(f"Cannot {words.leave}: {_words(error)}{lapses}")
            else:
                if self._has_worked:
                    kit.info(words.left)
            return

    def _time(self) -> float:
        """Return the seconds that a request may take at the end."""
        return max(0.1, min(self._target.rhythm.timeout, self._remaining() - WORDS))


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, RefusedError) else failure(error)


class Trouble:
    """Says what is wrong with a target: once, again when it lasts, and when it is over.

    Args:
        target: Which.
        clock: Seconds that only grow.
    """

    def __init__(self, target: Target, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = target.name
        self._words = target.words
        self._ttl = target.rhythm.ttl
        self._clock = clock
        self._worked_at: float | None = None
        self._since: float | None = None
        self._said: tuple[str, bool] | None = None
        self._said_at = 0.0

    def say(self, text: str) -> None:
        """Say what is wrong, unless that was said before."""
        now = self._clock()
        if self._since is None:
            self._since = now
        expired = False
        consequence = self._words.missing
        if self._worked_at is not None and self._ttl is not None:
            left = self._worked_at + self._ttl - now
            expired = left <= 0
            words = self._words
            consequence = words.lapsed if expired else f"{words.lapses} in {left:.0f} s"
        elif self._worked_at is not None:
            consequence = f"nothing heard for {now - self._worked_at:.0f} s"
        told = (text, expired)
        if told == self._said and now - self._said_at < REMINDER:
            return
        self._said, self._said_at = told, now
        speak = kit.error if expired or self._worked_at is None else kit.warning
        speak(f"Cannot {self._words.keep}: {text}; {consequence}; trying again")

    def over(self) -> None:
        """Say that all is well again, if something was said."""
        now = self._clock()
        if self._since is not None:
            kit.info(f"{self._name} has answered again, after {now - self._since:.1f} s")
        self._worked_at, self._since, self._said = now, None, None

    def forget(self) -> None:
        """Count from the beginning: there is no entry any more that could expire."""
        self._worked_at = None
