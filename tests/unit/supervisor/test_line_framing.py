# SPDX-License-Identifier: Apache-2.0
"""The framer turns any bytes into clean, bounded lines and loses none silently."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmcache_plugin_adapter.supervisor.output.line_framing import (
    CUT_MARK_BYTES,
    Block,
    LineFramer,
    sanitize,
)


def frame(*chunks: bytes, limit: int = 80) -> list[Block]:
    """Return the blocks of a whole stream."""
    framer = LineFramer(limit)
    blocks = [block for chunk in chunks for block in framer.feed(chunk)]
    return blocks + framer.flush()


def lines(*chunks: bytes, limit: int = 80) -> list[tuple[int, bytes]]:
    """Return level and text of each line of a stream."""
    return [
        (level, line)
        for level, text, _ in frame(*chunks, limit=limit)
        for line in text.split(b"\n")
    ]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"one\ntwo\n", [(6, b"one"), (6, b"two")]),
        (b"no newline", [(6, b"no newline")]),
        (b"\n\n", [(6, b""), (6, b"")]),
        (b"windows\r\n", [(6, b"windows")]),
        (b"windows\r\r\n", [(6, b"windows")]),
        (b"\r\n", [(6, b"")]),
        (b"\r", [(6, b"")]),
        (b"10 %\r20 %\r30 %\n", [(6, b"30 %")]),
        (b"10 %\r20 %\r30 %\r\n", [(6, b"30 %")]),
        (b"\r10 %\r20 %", [(6, b"20 %")]),
        (b"<4>shown\r<3>hidden\nnext\n", [(3, b"hidden"), (6, b"next")]),
        (b"erased\r      \r\n", [(6, b"erased")]),
        (b"tab\tstays\n", [(6, b"tab\tstays")]),
        (b"<3>bad\n<7>detail\nplain\n", [(3, b"bad"), (7, b"detail"), (6, b"plain")]),
        (b"<8>no level\n<33>nor this\n", [(6, b"<8>no level"), (6, b"<33>nor this")]),
        (b"\x1b[31mred\x07\n", [(6, b"red\\x07")]),
        (b"\x1b[32;20m[date]\x1b[0m a\x1b[m b\x1b[38:2::1:2:3mc\n", [(6, b"[date] a bc")]),
        (b"\x1b[1m<3>\x1b[0mbad\n", [(3, b"bad")]),
        (
            b"\x1b[2Jclear \x1b[31 m \x1b[?25l \x1b[31\n",
            [
                (6, b"\\x1b[2Jclear \\x1b[31 m \\x1b[?25l \\x1b[31"),
            ],
        ),
        (b"\x1b\x1b[0m[0m\n", [(6, b"\\x1b[0m")]),
        (b"nul\0\n", [(6, b"nul\\x00")]),
        (b"half \xc3\n", [(6, b"half \\xc3")]),
        (b"\xff\xfe\n", [(6, b"\\xff\\xfe")]),
        ("größe ✓\n".encode(), [(6, "größe ✓".encode())]),
        ("c1 \x9b31m\n".encode(), [(6, b"c1 \\u009b31m")]),
        ("two\u2028lines\n".encode(), [(6, b"two\\u2028lines")]),
        ("\u202egnp.exe\n".encode(), [(6, b"\\u202egnp.exe")]),
    ],
)
def test_lines(stream: bytes, expected: list[tuple[int, bytes]]) -> None:
    """Each kind of line, whole and byte by byte."""
    assert lines(stream) == expected
    assert lines(*(bytes([byte]) for byte in stream)) == expected


def test_long_line_is_cut_with_a_count() -> None:
    """A line over the limit keeps its beginning; the mark counts the rest exactly."""
    ((level, text),) = lines(b"x" * 1000 + b"\n", limit=80)
    assert (level, text) == (6, b"x" * 80 + b" [cut: 920 more bytes]")


def test_cut_never_splits_a_character() -> None:
    """A cut in the middle of a UTF-8 character goes back to its beginning."""
    for start in range(4):
        ((_, text),) = lines(b"x" * (80 - start) + "€".encode() * 20 + b"\n", limit=80)
        shown = text.split(b" [cut")[0]
        assert b"\\x" not in shown


def test_escapes_do_not_grow_a_line_over_the_limit() -> None:
    """Escapes are longer than the bytes they stand for; the limit holds all the same."""
    ((_, text),) = lines(b"\0" * 79 + b"\n", limit=80)
    shown, _, mark = text.partition(b" [cut: ")
    assert shown == b"\\x00" * 20
    assert mark == b"59 more bytes]"


def test_endless_line_takes_bounded_memory() -> None:
    """A gigabyte without a newline is counted, not kept."""
    framer = LineFramer(3072)
    chunk = b"x" * (1 << 20)
    for _ in range(1000):
        assert framer.feed(chunk) == []
    assert len(framer._held) <= 3072 + 4
    (block,) = framer.feed(b"\n")
    assert block.text.endswith(b" [cut: %s more bytes]" % f"{1000 * (1 << 20) - 3072:,}".encode())


def test_ordinary_burst_stays_one_block() -> None:
    """What is clean is not taken apart: the speed of the whole relay rests on it."""
    burst = b"".join(b"line %d of a burst\n" % number for number in range(1000))
    assert [(block.level, block.lines) for block in frame(burst)] == [(6, 1000)]


def test_an_unfinished_line_that_replaces_its_text_shows_progress() -> None:
    """Its present text, each once; and none of lines that only end as Windows' do."""
    framer = LineFramer(80)
    assert framer.feed(b"10 %") == []
    assert not framer.has_progress
    framer.feed(b"\r20 %\r30 %")
    assert framer.has_progress
    assert framer.progress() == [Block(6, b"30 %", 1)]
    assert not framer.has_progress
    assert framer.progress() == []
    framer.feed(b"\r<4>40 %\r")
    assert framer.progress() == [Block(4, b"40 %", 1)]
    assert framer.feed(b"\n") == []  # it has been shown
    assert framer.feed(b"windows\r\nlines\r\n")[0].text == b"windows\nlines"
    assert not framer.has_progress
    framer.feed(b"\r  \r")
    assert not framer.has_progress


def test_endless_progress_takes_bounded_memory() -> None:
    """Without a newline, and with texts of any length."""
    framer = LineFramer(80)
    for _ in range(100):
        assert framer.feed(b"x" * 100_000 + b"\r" + b"y" * 100_000 + b"\r\r") == []
    (block,) = framer.flush()
    assert block.text == b"y" * 80 + b" [cut: 99,920 more bytes]"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.integers(16, 120))
@example(b"a\n<3>b\nc", [2, 4], 16)
@example(b"a\r" + b" " * 60 + b"b\rc\r" + b" " * 60, [2, 4, 64, 70], 16)
@example(b"\xe2\x82", [1], 16)
def test_any_bytes_in_any_pieces(stream: bytes, cuts: list[int], limit: int) -> None:
    """However a stream is cut into reads, its lines are the same, clean and bounded."""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut <= len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    whole = lines(stream, limit=limit)
    assert lines(*pieces, limit=limit) == whole
    assert len(whole) == stream.count(b"\n") + (not stream.endswith(b"\n") and stream != b"")
    for level, text in whole:
        assert 0 <= level <= 7
        assert len(text) <= limit + CUT_MARK_BYTES
        assert all(c == "\t" or unicodedata.category(c) != "Cc" for c in text.decode())


@given(st.binary(max_size=200))
def test_blocks_count_their_lines(stream: bytes) -> None:
    """A block's count is the number of lines in its text."""
    for block in frame(stream):
        assert block.lines == block.text.count(b"\n") + 1


@given(st.binary(max_size=100))
def test_sanitize_is_idempotent(raw: bytes) -> None:
    """What is clean stays as it is."""
    clean = sanitize(raw)
    assert sanitize(clean) == clean
