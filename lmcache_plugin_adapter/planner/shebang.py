# SPDX-License-Identifier: Apache-2.0
"""The first line of a script, read as the Linux kernel reads it, and ``env`` as coreutils does.

Pure: bytes in, words out. Unlike the kernel, the module tolerates a UTF-8 byte
order mark before the line and a carriage return at its end. ``shlex`` cannot
split for ``env -S``, which has other escapes and refuses unknown ones.
"""

from __future__ import annotations

import os.path

from lmcache_plugin_adapter.contract.frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

HEAD_BYTES = 512
"""The part of a file that :func:`read_shebang` needs."""

_KERNEL_BYTES = 256
"""BINPRM_BUF_SIZE of Linux 5.1 and later: the kernel reads no further."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t"
_ESCAPES = {ord("f"): 12, ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("v"): 11}
_QUOTE, _DOUBLE, _BACKSLASH = b"'\"\\"
_WHITE = b" \t\n\v\f\r"


@frozen
class Shebang:
    """A parsed ``#!`` line.

    Attributes:
        interpreter: The program as written, never empty.
        argument: The rest of the line as one argument (the kernel does not split
            it), or None.
        cut: The part that the kernel cuts, if the line is longer than it reads.
            The kernel refuses a cut interpreter, but not a cut argument.
    """

    interpreter: bytes
    argument: bytes | None = None
    cut: Literal["interpreter", "argument"] | None = None

    @property
    def is_env(self) -> bool:
        """Whether the interpreter is ``env``, which looks up another one on PATH."""
        return os.path.basename(self.interpreter) == b"env"

    @property
    def words(self) -> list[bytes]:
        """The words that the kernel puts before the script's path."""
        return [self.interpreter] if self.argument is None else [self.interpreter, self.argument]


@frozen
class EnvCommand:
    """The parsed argument of an ``env`` shebang.

    Attributes:
        command: The program that ``env`` looks up on PATH, and its arguments.
            Empty if the line names none.
        plain: ``env`` does nothing else: it sets or removes no variable and has
            no option but ``-S``. The caller can then look the program up itself;
            otherwise ``env`` has to run.
        hint: The probable mistake if the program does not exist.
        keeps_path: ``env`` does not change PATH, so a lookup by the caller shows
            whether the program exists.
    """

    command: tuple[bytes, ...]
    plain: bool
    hint: str = ""
    keeps_path: bool = True


def read_shebang(head: bytes) -> Shebang | None:
    r"""Read the ``#!`` line at the start of a file.

    Args:
        head: The first :data:`HEAD_BYTES` bytes of the file, or all of it.

    Returns:
        The parsed line, or None without such a line or without an interpreter
        in it (the kernel then returns ENOEXEC).
    """
    buffer = _kernel_buffer(head)
    if not buffer.startswith(b"#!"):
        return None
    newline = end = buffer.find(b"\n")
    if newline < 0:
        # Without a newline, the kernel accepts the name only with a blank or NUL
        # after it, and takes the last byte as a terminator.
        name = buffer[2:].lstrip(_BLANK)
        if not name:
            return None
        if not any(blank in name for blank in (b" ", b"\t", b"\0")):
            return Shebang(name, cut="interpreter")
        end = _KERNEL_BYTES - 1
    line = buffer[2:end].rstrip(_BLANK).lstrip(_BLANK)
    stop = next((i for i, byte in enumerate(line) if byte in b" \t\0"), len(line))
    interpreter, rest = line[:stop], line[stop:]
    if not interpreter:
        return None
    if not rest or rest.startswith(b"\0"):
        return Shebang(interpreter)
    argument, nul, _ = rest.lstrip(_BLANK).partition(b"\0")
    return Shebang(interpreter, argument, "argument" if newline < 0 and not nul else None)


def read_env(argument: bytes | None) -> EnvCommand:
    """Read the argument of an ``env`` shebang.

    Args:
        argument: The single argument that the kernel passes, such as
            ``python3`` or ``-S python3 -u``.

    Returns:
        The parsed argument. Its command is empty if only ``env`` can read it.
    """
    if argument is None:
        return EnvCommand((), True, "'env' is given no program")
    split = _split_argument(argument)
    if split is None:
        # Without -S the kernel's one argument is one word, blanks and all.
        if argument.startswith(b"-"):
            return EnvCommand((), False, "'env' is given options only; use 'env -S'")
        if b"=" in argument:
            return EnvCommand((), True, "'env' is given a variable only; use 'env -S'")
        blank = any(byte in _BLANK for byte in argument)
        return EnvCommand((argument,), True, "arguments need 'env -S'" if blank else "")
    words = split_string(split)
    if words is None:
        # A variable or an unknown escape: only env knows its meaning.
        return EnvCommand((), False)
    return _env_command(words)


def split_string(text: bytes) -> list[bytes] | None:
    r"""Split as ``env -S`` does: blanks, quotes, escapes, ``#`` starts a comment.

    Args:
        text: What follows ``-S``.

    Returns:
        The words, or None if they depend on env's environment (``${NAME}``) or
        env would refuse them (an unknown escape, an open quote).
    """
    words: list[bytes] = []
    word: bytearray | None = None  # None between words
    quote = 0
    codes = iter(text)
    for code in codes:
        added: bytes = bytes([code])
        if quote == 0 and code in _WHITE:
            _finish(words, word)
            word = None
            continue
        if code == ord("#") and word is None:
            break
        if code == ord("$") and quote != _QUOTE:
            return None
        if code in (_QUOTE, _DOUBLE) and quote in (0, code):
            quote = 0 if quote else code
            added = b""
        elif code == _BACKSLASH:
            escaped = next(codes, 0)
            if escaped == ord("c") and quote == 0:
                break
            if escaped == ord("_") and quote == 0:
                _finish(words, word)
                word = None
                continue
            meaning = _unescape(escaped, quote)
            if meaning is None:
                return None
            added = meaning
        word = (bytearray() if word is None else word) + added
    _finish(words, word)
    return None if quote else words


def _finish(words: list[bytes], word: bytearray | None) -> None:
    if word is not None:
        words.append(bytes(word))


def _kernel_buffer(head: bytes) -> bytes:
    """Return the bytes that the kernel reads, without mark and carriage return."""
    head = head.removeprefix(_BOM)
    line, newline, rest = head.partition(b"\n")
    if line.endswith(b"\r"):
        head = line.rstrip(b"\r") + newline + rest
    return head[:_KERNEL_BYTES].ljust(_KERNEL_BYTES, b"\0")


def _split_argument(argument: bytes) -> bytes | None:
    """Return the text after ``-S`` or ``--split-string=``, or None without either."""
    for option in (b"--split-string=", b"-S"):
        if argument.startswith(option):
            return argument[len(option) :]
    return None


def _env_command(words: list[bytes]) -> EnvCommand:
    """Skip env's own options and assignments."""
    plain = keeps_path = True
    rest = iter(words)
    for word in rest:
        if word == b"--":
            continue
        if word in (b"-", b"-i", b"--ignore-environment"):
            plain = keeps_path = False
        elif word in (b"-u", b"--unset"):
            plain = False
            removed = next(rest, b"")
            keeps_path = keeps_path and removed != b"PATH"
        elif word.startswith(b"-"):
            return EnvCommand((), False)
        elif b"=" in word:
            plain = False
            keeps_path = keeps_path and not word.startswith(b"PATH=")
        else:
            return EnvCommand((word, *rest), plain, keeps_path=keeps_path)
    return EnvCommand((), True, "'env -S' is given no program")


def _unescape(code: int, quote: int) -> bytes | None:
    if quote == _QUOTE:
        # Single quotes keep a backslash unless it escapes a quote or a backslash.
        return bytes([code]) if code in (_QUOTE, _BACKSLASH) else bytes([_BACKSLASH, code])
    if code == ord("_") and quote == _DOUBLE:
        return b" "
    if code in b"#$\"'\\":
        return bytes([code])
    return bytes([_ESCAPES[code]]) if code in _ESCAPES else None
