# SPDX-License-Identifier: Apache-2.0
"""Shebang lines: read as this kernel and this ``env`` read them, checked against both."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter.planner.shebang import (
    HEAD_BYTES,
    EnvCommand,
    Shebang,
    read_env,
    read_shebang,
    split_string,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"#!/bin/sh\n", [b"/bin/sh"]),
        (b"#!/bin/sh", [b"/bin/sh"]),
        (b"#! \t /bin/sh \t \nrest", [b"/bin/sh"]),
        (b"#!/bin/sh -e -x\n", [b"/bin/sh", b"-e -x"]),
        (b"#!/bin/sh\t-e\t \n", [b"/bin/sh", b"-e"]),
        (b"#!/usr/bin/awk -f\nBEGIN{}", [b"/usr/bin/awk", b"-f"]),
        (b"#!/bin/sh -e\r\n", [b"/bin/sh", b"-e"]),
        (b"#!/usr/bin/env python3\r\n", [b"/usr/bin/env", b"python3"]),
        (b"#!/bin/sh \r\nx\r\n", [b"/bin/sh"]),
        (b"\xef\xbb\xbf#!/bin/sh\n", [b"/bin/sh"]),
        (b"\xef\xbb\xbf#!/bin/sh\r\n", [b"/bin/sh"]),
        (b"#!/bin/sh -e" + b"\0" * 3, [b"/bin/sh", b"-e"]),
        (b"#!/b\xff\xfe/sh\n", [b"/b\xff\xfe/sh"]),
        (b"#!python3\n", [b"python3"]),
    ],
)
def test_a_shebang_is_taken_apart(head: bytes, words: list[bytes]) -> None:
    """The interpreter, then everything else as one argument."""
    shebang = read_shebang(head)
    assert shebang is not None
    assert shebang.words == words
    assert shebang.cut is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#",
        b"#!",
        b"#!\n",
        b"#! \t\n/bin/sh",
        b"# !/bin/sh\n",
        b" #!/bin/sh\n",
        b"\n#!/bin/sh",
    ],
)
def test_a_line_that_names_no_interpreter_is_no_shebang(head: bytes) -> None:
    """The kernel says ENOEXEC to these."""
    assert read_shebang(head) is None


def test_what_the_kernel_cuts_is_known() -> None:
    """A name that fills the kernel's buffer is refused; an argument is cut without a word."""
    assert read_shebang(b"#!/" + b"x" * 300 + b"\n") == Shebang(
        b"/" + b"x" * 253, cut="interpreter"
    )
    long = read_shebang(b"#!/bin/sh " + b"x" * 300 + b"\n")
    assert long is not None
    assert long.cut == "argument"
    assert len(long.argument or b"") == 255 - len(b"#!/bin/sh ")
    assert read_shebang(b"#!/bin/sh " + b"x" * 245 + b"\n") == Shebang(b"/bin/sh", b"x" * 245)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An interpreter that prints the words it was started with, each with a NUL behind it."""
    path = tmp_path_factory.mktemp("p") / "probe"
    path.write_text('#!/bin/sh\nprintf \'%s\\0\' "$0" "$@"\n')
    path.chmod(0o755)
    return os.fsencode(path)


def started_with(argv: list[bytes]) -> list[bytes] | None:
    """Run a program that prints its words; None where the kernel refuses its format."""
    try:
        output = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
    except OSError as error:
        if error.errno not in (errno.ENOEXEC, errno.ENOENT):
            raise
        return None
    return output.split(b"\0")[:-1]


BLANKS = st.text(" \t", max_size=3).map(str.encode)
ENDS = st.sampled_from([b"", b"\n", b" \n", b"\0\n", b"\nrest\n", b"\0", b"\t"])
ARGUMENTS = st.lists(
    st.sampled_from([b"-x", b"  ", b"\t", b"a=b", b'"q q"', b"\xff", b"\0", b"#", b"x" * 120]),
    max_size=5,
).map(b"".join)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(b"", 0, b" " + b"x" * 400, b"\n")
@example(b"", 200, b"", b"\n")
@example(b"", 300, b"", b"\n")
@example(b" ", 0, b" -x ", b"")
@given(BLANKS, st.integers(0, 260), BLANKS.flatmap(lambda b: ARGUMENTS.map(b.__add__)), ENDS)
def test_this_kernel_reads_the_same(
    probe: bytes, tmp_path: Path, lead: bytes, padding: int, arguments: bytes, end: bytes
) -> None:
    """Execute the script for real and compare what its interpreter was started with."""
    if arguments and arguments[:1] not in (b" ", b"\t", b"\0"):
        arguments = b" " + arguments
    head = b"#!" + lead + b"/" * padding + probe + arguments + end
    script = tmp_path / "script"
    script.write_bytes(head)
    script.chmod(0o755)
    shebang = read_shebang(head[:HEAD_BYTES])
    expected = None
    if shebang is not None and shebang.cut != "interpreter":
        expected = [*shebang.words, os.fsencode(script)]
    assert started_with([os.fsencode(script)]) == expected


@given(st.binary(max_size=600))
def test_any_bytes_are_read_without_an_error(head: bytes) -> None:
    """Reading never raises, and an interpreter has a name."""
    shebang = read_shebang(head)
    assert shebang is None or shebang.interpreter


@given(st.binary(max_size=200))
def test_carriage_return_and_byte_order_mark_change_nothing(line: bytes) -> None:
    """A script saved on Windows is read as it was meant."""
    line = line.replace(b"\n", b"").replace(b"\r", b"")
    unix = read_shebang(b"#!" + line + b"\nrest")
    assert read_shebang(b"#!" + line + b"\r\nrest") == unix
    assert read_shebang(b"\xef\xbb\xbf#!" + line + b"\nrest") == unix


@pytest.mark.parametrize(
    ("argument", "command", "plain"),
    [
        (b"python3", (b"python3",), True),
        (b"-S python3 -u -X dev", (b"python3", b"-u", b"-X", b"dev"), True),
        (b"-Spython3 -u", (b"python3", b"-u"), True),
        (b"--split-string=python3 -u", (b"python3", b"-u"), True),
        (b"-S -- python3", (b"python3",), True),
        (b"-S perl -w 'a b' \"c d\"", (b"perl", b"-w", b"a b", b"c d"), True),
        (b"-S perl # comment", (b"perl",), True),
        (b"-S FOO=bar python3 -u", (b"python3", b"-u"), False),
        (b"-S -i python3", (b"python3",), False),
        (b"-S -u HOME python3", (b"python3",), False),
        (b"-S --unset=HOME python3", (), False),
        (b"-S ${HOME}/bin/x", (), False),
        (b"-S --chdir=/ python3", (), False),
        (b"-vS python3", (), False),
    ],
)
def test_env_is_understood(argument: bytes, command: tuple[bytes, ...], plain: bool) -> None:
    """A plain program is looked up without env; whatever env itself must do is left to it."""
    found = read_env(argument)
    assert (found.command, found.plain) == (command, plain)


@pytest.mark.parametrize(
    ("argument", "keeps"),
    [
        (b"-S A=b python3", True),
        (b"-S -u HOME python3", True),
        (b"-S -u PATH python3", False),
        (b"-S PATH=/opt/bin python3", False),
        (b"-S -i python3", False),
    ],
)
def test_a_changed_path_is_noticed(argument: bytes, keeps: bool) -> None:
    """Then only env itself can tell whether the program exists."""
    assert read_env(argument).keeps_path is keeps


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        (None, "no program"),
        (b"-S", "no program"),
        (b"-S A=b", "no program"),
        (b"-i", "env -S"),
        (b"A=b", "env -S"),
        (b"python3 -u", "env -S"),
    ],
)
def test_a_wrong_env_line_gets_a_hint(argument: bytes | None, hint: str) -> None:
    """Mistakes that would start the script over and over, or never, are explained."""
    assert hint in read_env(argument).hint


SPLIT = st.lists(
    st.sampled_from(
        [
            b" ",
            b"\t",
            b"\v",
            b'"x y"',
            b"\xc3\xa9",
            b"\xff",
            *rb"""a -b ' " # $ A=b '' "" \ \_ \n \c \' \\ \$ \q""".split(),
        ]
    ),
    max_size=8,
).map(b"".join)


@pytest.mark.skipif(shutil.which("env") is None, reason="needs env")
@settings(max_examples=150)
@example(b"a\\_\\_b")
@example(b"\\c 'a")
@given(SPLIT)
def test_this_env_splits_the_same(probe: bytes, text: bytes) -> None:
    """Let the real ``env -S`` split the text and compare its words."""
    words = split_string(b" " + text)
    argv = [b"env", b"-S" + probe + b" " + text]
    run = subprocess.run(argv, capture_output=True, check=False)
    if words is None:
        assert run.returncode == 125 or b"$" in text
    else:
        assert run.returncode == 0, run.stderr
        assert run.stdout.split(b"\0")[1:-1] == words


@given(st.none() | st.binary(max_size=100) | SPLIT.map(b"-S".__add__))
def test_any_env_argument_is_read_without_an_error(argument: bytes | None) -> None:
    """Reading never raises; a plain command can be looked up or has a hint."""
    found = read_env(argument)
    assert isinstance(found, EnvCommand)
    assert found.command or not found.plain or found.hint
