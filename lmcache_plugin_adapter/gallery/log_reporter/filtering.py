# SPDX-License-Identifier: Apache-2.0
"""Leave out records, and hide parts of their text, by the operator's patterns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record


def compiled(key: str, patterns: Sequence[str], effect: str) -> list[re.Pattern[str]]:
    """Return the usable patterns; log each other one in one line.

    Args:
        key: The full key of the list.
        patterns: The regular expressions.
        effect: What an invalid pattern means.
    """
    found = []
    for index, pattern in enumerate(patterns):
        try:
            found.append(re.compile(pattern, re.MULTILINE))
        except (re.error, OverflowError, RecursionError) as error:
            kit.error(
                f"Cannot use setting '{key}[{index}]': found {pattern!r}, accepted is a regular "
                f"expression: {error}; {effect}"
            )
    return found


class RecordFilter:
    """Apply the patterns to whole records.

    Args:
        drop: A record that one of these matches is not delivered.
        redact: What these match is replaced; if a pattern has groups, only what they match.
        mark: The replacement.
        own: Records that are left out without being counted.
    """

    def __init__(
        self,
        drop: Sequence[re.Pattern[str]],
        redact: Sequence[re.Pattern[str]],
        mark: str,
        own: Sequence[re.Pattern[str]] = (),
    ) -> None:
        self._own = own
        self._drop = drop
        self._redact = redact
        self._mark = mark
        self.dropped = 0
        """The number of records that ``drop`` has left out."""

    def apply(self, record: Record) -> None:
        """Mark a record as not wanted, or change its text."""
        if record.wanted and any(pattern.match(record.text) for pattern in self._own):
            record.wanted = False
        if not record.wanted:
            return
        if any(pattern.search(record.text) for pattern in self._drop):
            record.wanted = False
            self.dropped += 1
            return
        for pattern in self._redact:
            record.text = pattern.sub(self._hidden, record.text)
            for name, value in (record.extra or {}).items():
                # A pattern may need the name, as in `password=(.*)`.
                before = f"{name}="
                hidden = pattern.sub(self._hidden, before + value)
                if record.extra is not None:
                    record.extra[name] = (
                        hidden.removeprefix(before) if hidden.startswith(before) else self._mark
                    )

    def _hidden(self, found: re.Match[str]) -> str:
        text, start = found[0], found.start()
        if not found.re.groups:
            return self._mark
        spans = sorted(found.span(group) for group in range(1, found.re.groups + 1))
        parts, end = [], 0
        for begins, ends in spans:
            if begins - start < end or begins < 0:
                continue  # in another group, or did not take part
            parts += [text[end : begins - start], self._mark]
            end = ends - start
        return "".join(parts) + text[end:]
