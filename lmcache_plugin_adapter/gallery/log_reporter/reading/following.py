"""One followed path: what is there now, and what was rotated away and is not yet delivered."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .resuming import again, between, copy_of, resume
from .tailed_file import Line, Place, Segment, Truncated, open_log

if TYPE_CHECKING:
    from .resuming import Report

HELD = 8
"""Rotated files of one path that are held open until they have been delivered."""

_SETTLE = 1.0
"""Seconds for which a rotated file must be quiet before the new one is read."""

_PATIENCE = 5.0
"""Seconds after which the new file is read in any case: vLLM never reopens its stderr, so that
what it writes goes on into the renamed file."""

_LOST = 30.0
"""Seconds for which a file that cannot be read is looked for where it should be."""

_RETRY = 30.0
"""Seconds between two such looks, at most."""

_UNLINKED = 600.0
"""Seconds for which a deleted file that is quiet is kept open."""


@dataclass
class _Failing:
    """A file that could not be read, and may be readable again."""

    since: float
    next: float
    """When it is opened anew, and read."""
    missed: float | None = None
    """Since when it has not been found where it should be."""


class FollowedPath:
    """The files that have stood at one path, oldest first.

    Args:
        path: The path.
        max_line_bytes: Longer lines are cut.
        places: What was remembered, oldest first.
        report: Called with a sentence, and the bytes that are lost, if any.
    """

    def __init__(self, path: str, max_line_bytes: int, places: list[Place], report: Report) -> None:
        self.path = path
        self.segments: list[Segment] = []
        self._max_line = max_line_bytes
        self._report = report
        self._places = places
        self._superseded: dict[int, float] = {}
        self._failing: dict[Segment, _Failing] = {}
        self._failure = ""

    def close(self) -> None:
        """Close all files."""
        for segment in self.segments:
            segment.close()

    def places(self) -> list[Place]:
        """Return what is to be remembered, oldest first."""
        return self._places or [segment.place() for segment in self.segments]

    def identities(self) -> set[tuple[int, int]]:
        """Return device and inode of the files, of what is at the path now included."""
        keys = {(place.device, place.inode) for place in self.places()}
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            keys.add((found.st_dev, found.st_ino))
        return keys

    @property
    def unread(self) -> int:
        """Bytes that have not been read, as far as known."""
        return sum(segment.unread for segment in self.segments)

    def poll(self, now: float) -> None:
        """Look what is at the path now, and whether files have grown or were truncated.

        Args:
            now: A monotonic time.
        """
        for segment, failing in list(self._failing.items()):
            if now >= failing.next:
                self._open_anew(segment, failing, now)
        try:
            if self._places:
                self.segments = resume(self.path, self._max_line, self._places, self._report)
                self._places = []
            self._find()
            self._failure = ""
        except OSError as error:
            for failing in self._failing.values():
                failing.missed = None  # it may come back with its directory
            text = f"cannot follow {self.path!r}: {error.strerror}"
            if text != self._failure:
                self._failure = text
                self._report(text, 0)
        waiting = list(self.segments)
        while waiting:
            segment = waiting.pop(0)
            try:
                if not self._rests(segment, now):
                    segment.look(now)
                    if not segment.unread:
                        self._failing.pop(segment, None)
            except Truncated:
                waiting += self._restart(segment)
            except OSError as error:
                self._fail(segment, error, now)
        for segment in self.segments[:-1]:
            self._superseded.setdefault(id(segment), now)
        self._let_go(now)

    def read(self, now: float, *, final: bool = False) -> tuple[Segment, list[Line]] | None:
        """Return the next lines and their file, or None if there are none for now.

        Args:
            now: A monotonic time.
            final: Take last lines without a newline, too.
        """
        for segment in list(self.segments):
            try:
                lines = [] if self._rests(segment, now) else segment.read(final=final)
            except Truncated:
                self._restart(segment)
                return self.read(now, final=final)
            except OSError as error:
                self._fail(segment, error, now)
                lines = []
            if lines:
                self._failing.pop(segment, None)
                return segment, lines
            last = segment is self.segments[-1]
            if last or not (final or self._may_pass(segment, now)):
                return None
        return None

    def _find(self) -> None:
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        key = (found.st_dev, found.st_ino)
        last = self.segments[-1] if self.segments else None
        if last is not None and (last in self._failing or (last.key == key and not last.frozen)):
            return
        for segment in self.segments:
            if segment.key == key and not segment.frozen:  # it was moved back
                self.segments.remove(segment)
                self.segments.append(segment)
                self._superseded.pop(id(segment), None)
                return
        opened = open_log(self.path)
        if opened is None:
            return
        self.segments += between(self.path, self.segments, self._max_line)
        self.segments.append(Segment(opened, self._max_line))

    def _may_pass(self, segment: Segment, now: float) -> bool:
        """Whether what comes after ``segment`` may be read."""
        if segment.frozen or segment.is_copy:
            return True
        failing = self._failing.get(segment)
        if failing is not None:
            return now - failing.since >= _PATIENCE
        since = self._superseded.setdefault(id(segment), now)
        quiet = now - max(segment.quiet_since, since)
        return quiet >= _SETTLE or now - since >= _PATIENCE

    def _restart(self, segment: Segment) -> list[Segment]:
        """Read a truncated file from its beginning, after what is left of it in a copy.

        Returns:
            What is to be read after ``segment``.
        """
        position = self.segments.index(segment)
        fresh = Segment(os.dup(segment.fd), self._max_line)
        fd = copy_of(segment, self.path)
        if fd is not None:
            segment.rebind(fd)
            segment.is_copy = True
        else:
            lost = segment.unread
            segment.freeze()
            if lost:
                self._report(
                    f"{self.path!r} was truncated before all of it was delivered: "
                    f"at least {lost:,} bytes are lost",
                    lost,
                )
        new = [fresh]
        if fd is not None:
            new = [*between(self.path, self.segments[: position + 1], self._max_line), fresh]
        self.segments[position + 1 : position + 1] = new
        return new

    def _fail(self, segment: Segment, error: OSError, now: float) -> None:
        """Have a file opened anew that could not be read: what stands in it is not yet lost."""
        failing = self._failing.get(segment)
        if failing is None:
            self._failing[segment] = _Failing(now, now)
            self._report(f"cannot read {self.path!r}: {error.strerror}; it is tried again", 0)
        elif failing.missed is None or now - failing.missed < _LOST:
            failing.next = now + min(now - failing.since, _RETRY)
        else:
            lost = segment.unread
            self._report(f"{self.path!r} cannot be read and is gone: {lost:,} bytes are lost", lost)
            segment.freeze()
            del self._failing[segment]

    def _rests(self, segment: Segment, now: float) -> bool:
        """Whether it is not yet time to read a file again that could not be read."""
        failing = self._failing.get(segment)
        return failing is not None and now < failing.next

    def _open_anew(self, segment: Segment, failing: _Failing, now: float) -> None:
        try:
            fd = again(segment, self.path)
            if fd is not None:
                segment.rebind(fd)
                failing.missed = None
            elif failing.missed is None:
                failing.missed = now
        except OSError as error:
            self._fail(segment, error, now)

    def _let_go(self, now: float) -> None:
        """Close rotated files that are done with, and the oldest if there are too many."""
        for segment in self.segments[:-1]:
            done = segment.delivered and not segment.unread
            ended = segment.frozen or segment.is_copy
            if not ended and now - segment.quiet_since >= _UNLINKED:
                ended = segment.unlinked
            if (done and ended) or len(self.segments) > HELD:
                self._drop(segment)
        last = self.segments[-1] if self.segments else None
        if (
            last is not None
            and last.delivered
            and not last.unread
            and now - last.quiet_since >= _UNLINKED
            and last.unlinked
        ):
            self._drop(last)

    def _drop(self, segment: Segment) -> None:
        lost = segment.unread
        if lost:
            self._report(
                f"{self.path!r} was rotated {HELD} times before its oldest part was "
                f"delivered: {lost:,} bytes are lost",
                lost,
            )
        segment.freeze()
        segment.close()
        self.segments.remove(segment)
        self._superseded.pop(id(segment), None)
        self._failing.pop(segment, None)
