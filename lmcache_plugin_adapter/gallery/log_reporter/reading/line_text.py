# SPDX-License-Identifier: Apache-2.0
"""Clean a line of a log file, and split it into its parts."""

from __future__ import annotations

import re
from typing import NamedTuple

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_PROCESS = re.compile(
    r"(?:\((?:(?P<process>[^()=]{1,128}?) )?pid=(?P<pid>\d{1,10})(?:, [^()]*)?\) |"
    r"\((?P<service>raylet|gcs_server|autoscaler)(?:[, +][^()]*)?\) )+"
)
_LMCACHE_TAIL = re.compile(r" ?\((?P<file>[^()]*?):(?P<line>\d{1,10}):(?P<logger>[^():]*)\)$")

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), 127)}
_ESCAPES.update({code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), 0x2028, 0x2029)})

_PROGRESS = ("%|", "it/s", "s/it", "B/s")


class Tail(NamedTuple):
    """The end of an LMCache record."""

    text: str
    """The text before it."""
    file: str
    line: int
    logger: str


def clean(raw: bytes) -> str:
    r"""Return a line as text without colours and control characters; invalid bytes as ``\xNN``.

    TABs stay. Of a progress bar, only the last state stays, as on a terminal; the prefix of the
    process stays before it.
    """
    text = _ANSI.sub("", raw.decode("utf-8", "backslashreplace"))
    if "\r" in text:
        text = _last_state(text)
    return text if text.isprintable() else text.translate(_ESCAPES)


def _last_state(text: str) -> str:
    """Return a line with carriage returns without the earlier states of its progress bars."""
    prefix, *_ = split_process(text)
    states = [part[len(split_process(part)[0]) :] for part in text.split("\r")]
    *earlier, last = [state for state in states if state.strip()] or [""]
    kept = [state for state in earlier if not any(mark in state for mark in _PROGRESS)]
    return prefix + "\r".join([*kept, last])


def split_process(text: str) -> tuple[str, str, int | None]:
    """Return the prefix ``(NAME pid=N) `` of a line, with name and process id."""
    if not text.startswith("("):
        return "", "", None
    found = _PROCESS.match(text)
    if found is None:
        return "", "", None
    pid = found["pid"]
    return found[0], found["process"] or found["service"] or "", int(pid) if pid else None


def split_tail(text: str) -> Tail | None:
    """Split the end of an LMCache record from its text; None: the line has no such end."""
    found = _LMCACHE_TAIL.search(text[-600:])
    if found is None:
        return None
    before = text[: len(text) - len(found[0])]
    return Tail(before, found["file"], int(found["line"]), found["logger"])


def whole_characters(raw: bytes) -> bytes:
    """Return UTF-8 without an incomplete last character."""
    for back in range(1, min(len(raw), 3) + 1):
        byte = raw[-back]
        if byte >= 0xC0:  # the first byte of a character
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return raw[:-back] if needed > back else raw
        if byte < 0x80:
            break
    return raw
