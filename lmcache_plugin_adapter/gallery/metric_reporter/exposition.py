# SPDX-License-Identifier: Apache-2.0
"""Read and write Prometheus' text format.

The parser of prometheus_client renames counters without ``_total``; this one keeps the engine's
names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KINDS = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})

_SUFFIXES = {
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "counter": ("_total", "_created"),
}
# No pattern backtracks on a long line.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?![^ \t{])")
_VALUE = re.compile(r"([^\s{}]+)(?:[ \t]+(-?[0-9]+))?\Z")
_LABEL = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:,[ \t]*|\Z)'
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}


class ExpositionError(ValueError):
    """The text is not in Prometheus' format."""


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    labels: dict[str, str]
    value: float
    timestamp: int | None = None
    """Milliseconds since 1970, if the engine gave a time."""


class Family(NamedTuple):
    """The samples under one ``TYPE``."""

    name: str
    kind: str
    """One of ``KINDS``."""
    help: str
    samples: list[Sample]


def parse(text: str) -> list[Family]:
    """Return the families of a text, in its order.

    Raises:
        ExpositionError: A line is invalid; the message has its number.
    """
    reader = _ExpositionReader()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if not stripped:
            continue
        try:
            if stripped.startswith("#"):
                reader.comment(stripped)
            else:
                reader.sample(stripped)
        except ValueError as error:
            raise ExpositionError(f"line {number}: {error}") from None
    return [family for family in reader.families.values() if family.samples]


class _ExpositionReader:
    """Collect the families of one text."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self._now: Family | None = None

    def comment(self, line: str) -> None:
        words = line.split(None, 3)
        if len(words) < 3 or words[0] != "#" or words[1] not in ("HELP", "TYPE"):
            return
        what, name, rest = words[1], words[2], words[3] if len(words) > 3 else ""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a metric")
        found = self.families.get(name, Family(name, "untyped", "", []))
        if what == "HELP":
            found = found._replace(help=_unescape(rest))
        elif not found.samples:  # a TYPE after the samples is too late
            found = found._replace(kind=rest if rest in KINDS else "untyped")
        self.families[name] = self._now = found

    def sample(self, line: str) -> None:
        start = _NAME.match(line)
        rest = line[start.end() :].lstrip(" \t") if start else ""
        inside = ""
        if rest.startswith("{"):
            inside, _, rest = rest[1:].rpartition("}")
        end = _VALUE.match(rest.lstrip(" \t"))
        if start is None or end is None:
            raise ValueError("no sample")
        name = start[0]
        value, timestamp = end.groups()
        time = None if timestamp is None else int(timestamp)
        if time is not None and not -(2**63) <= time < 2**63:
            raise ValueError("a time that is no time")
        one = Sample(name, _labels(inside) if inside else {}, float(value), time)
        self._family(name).samples.append(one)

    def _family(self, name: str) -> Family:
        now = self._now
        if now is None or not _belongs(name, now):
            now = self.families.setdefault(name, Family(name, "untyped", "", []))
            self._now = now
        return now


def _belongs(name: str, family: Family) -> bool:
    if name == family.name:
        return True
    return name.startswith(family.name) and name[len(family.name) :] in _SUFFIXES.get(
        family.kind, ()
    )


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            if text[at:].strip(" \t"):
                raise ValueError("no label where one is expected")
            break
        name, value = match.groups()
        if name in found:
            raise ValueError(f"label {name!r} stands there twice")
        found[name] = _unescape(value) if "\\" in value else value
        at = match.end()
    return found


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[0]), text)


def write(families: list[Family]) -> bytes:
    """Return families in the text format, without timestamps, which a Pushgateway refuses."""
    lines: list[str] = []
    for family in families:
        if family.help:
            text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
            lines.append(f"# HELP {family.name} {text}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += map(line_of, family.samples)
    return ("\n".join(lines) + "\n").encode("utf-8", "replace") if lines else b""


def line_of(sample: Sample) -> str:
    """Return a sample in the text format."""
    labels = ",".join(f'{name}="{_escape(text)}"' for name, text in sample.labels.items())
    inside = f"{{{labels}}}" if labels else ""
    return f"{sample.name}{inside} {number(sample.value)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def number(value: float) -> str:
    """Return a value in the format's notation."""
    if value != value:  # NaN, and cheaper than math.isnan
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
