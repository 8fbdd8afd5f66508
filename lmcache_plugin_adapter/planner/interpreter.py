"""What runs a plugin file: its shebang, the engine's Python, bash, or the file itself."""

from __future__ import annotations

import os
import re
import stat

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .shebang import HEAD_BYTES, Shebang, read_env, read_shebang

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .installed_plugin import Installed

_SHELLS = frozenset({b"sh", b"bash", b"dash", b"ksh", b"zsh"})
_ELF = b"\x7fELF"
_PYTHON = re.compile(rb"python(\d+(\.\d+)?)?")


@frozen
class Command:
    """How to start a plugin, or why it cannot be started.

    Attributes:
        argv: The program's absolute path, its arguments, the plugin's path
            (unless it is the program) and the plugin's own arguments. Empty
            when it cannot run.
        error: Why it cannot run and how to mend it, for a line that starts
            with the plugin; None when it can.
        warnings: What went differently than the file asks, worth a line
            whenever the plugin starts.
        hints: What its author should know; only a check shows these.
    """

    argv: tuple[bytes, ...] = ()
    error: str | None = None
    warnings: tuple[str, ...] = ()
    hints: tuple[Problem, ...] = ()


class CannotRunError(Exception):
    """Raised inside this module: the message says why and how to mend it."""


class Interpreters:
    """Decide for one file after another what runs it.

    Args:
        python: The interpreter that runs the engine.
        path: Where programs are looked up, as the PATH variable has it.
    """

    def __init__(self, python: str, path: str) -> None:
        self._python = os.fsencode(python)
        self._path = os.fsencode(path)
        self._found: dict[bytes, bytes | None] = {}

    def command(self, path: str, arguments: tuple[str, ...] = ()) -> Command:
        """Decide how a plugin is started.

        A shebang decides. Without one, or when its interpreter does not
        exist, ``.py`` runs with the engine's Python and ``.sh`` with bash. A
        file with the exec bit and no shebang is executed.

        Args:
            path: The plugin's absolute path.
            arguments: The plugin's own arguments.

        Returns:
            The command, or why there is none. Never raises.
        """
        script = os.fsencode(path)
        choice = _Choice(script)
        try:
            words = self._words(choice)
        except CannotRunError as error:
            return Command((), str(error), tuple(choice.warnings), tuple(choice.hints))
        except OSError as error:
            return Command((), _cannot_read(path, error))
        choice.hint_at_line_ends(words)
        return _complete(choice, words, arguments)

    def entry_point(self, installed: Installed, arguments: tuple[str, ...] = ()) -> Command:
        """Decide how an installed plugin is started: always with the engine's Python.

        Args:
            installed: The plugin, which has no trouble.
            arguments: Its own arguments.

        Returns:
            The command, or why there is none. Never raises.
        """
        from .installed_plugin import RUNNER

        choice = _Choice(os.fsencode(RUNNER))
        choice.warnings += filter(None, [installed.warning])
        choice.hints += [Problem("note", text) for text in filter(None, [installed.note])]
        own = (installed.name, installed.reference, installed.root)
        try:
            words = [self._engine_python(), choice.script, *map(os.fsencode, own)]
        except CannotRunError as error:
            return Command((), str(error), tuple(choice.warnings), tuple(choice.hints))
        except UnicodeEncodeError:
            return Command((), f"{quoted(installed.reference)} cannot be encoded in this locale")
        return _complete(choice, words, arguments)

    def _words(self, choice: _Choice) -> list[bytes]:
        choice.head = _read_head(choice.script)
        if not choice.head:
            raise CannotRunError("the file is empty: write the plugin or remove it")
        shebang = read_shebang(choice.head)
        if shebang is not None:
            return self._by_shebang(choice, shebang)
        if choice.is_elf:
            return _by_itself(choice)
        words = self._by_extension(choice)
        if words is not None:
            return words
        if choice.mode & 0o111:
            choice.hints.append(
                Problem(
                    "warning",
                    "it has the exec bit but is neither a compiled program nor starts with '#!': "
                    "starting it will probably fail; write its interpreter into the first line, "
                    "as '#!/usr/bin/env python3'",
                )
            )
            return _by_itself(choice)
        raise CannotRunError(
            "nothing says what runs it: write its interpreter into the first line, as "
            "'#!/usr/bin/env perl', or set the exec bit if it is a compiled program (chmod +x)"
        )

    def _by_shebang(self, choice: _Choice, shebang: Shebang) -> list[bytes]:
        if shebang.cut == "interpreter":
            return self._instead(choice, "its first line is longer than the kernel's 255 bytes", "")
        if shebang.cut == "argument":
            choice.warnings.append(
                "its first line is longer than the 255 bytes that the kernel reads: "
                "the rest is cut off"
            )
        if shebang.is_env:
            return self._by_env(choice, shebang)
        program = self._program(shebang.interpreter)
        if program is None:
            why = self._missing(shebang.interpreter)
            return self._instead(choice, why, "")
        if b"/" not in shebang.interpreter:
            name = quoted(os.fsdecode(shebang.interpreter))
            choice.hints.append(
                Problem(
                    "warning",
                    f"its first line names {name} without a path, which other launchers look up "
                    f"in the working directory: write '#!/usr/bin/env {name[1:-1]}'",
                )
            )
        else:
            self._compare_python(choice, program)
        return [program, *shebang.words[1:], choice.script]

    def _by_env(self, choice: _Choice, shebang: Shebang) -> list[bytes]:
        env = read_env(shebang.argument)
        if not env.command and env.hint:
            return self._instead(choice, f"its first line is incomplete: {env.hint}", "")
        if env.plain or (env.command and env.keeps_path):
            program = self._program(env.command[0])
            if program is None:
                return self._instead(choice, self._missing(env.command[0]), env.hint)
            if b"/" in env.command[0]:
                self._compare_python(choice, program)
            if env.plain:
                return [program, *env.command[1:], choice.script]
        # Variables and other options are for env itself to carry out.
        itself = self._program(shebang.interpreter) or self._program(b"env")
        if itself is None:
            return self._instead(choice, self._missing(shebang.interpreter), "")
        return [itself, *shebang.words[1:], choice.script]

    def _instead(self, choice: _Choice, why: str, hint: str) -> list[bytes]:
        """Fall back to what the extension says, with one warning."""
        hint = f" ({hint})" if hint else ""
        words = self._by_extension(choice)
        if words is None:
            raise CannotRunError(f"{why}{hint}: install it or correct the file's first line")
        choice.warnings.append(f"{why}{hint}: it runs with {quoted(os.fsdecode(words[0]))} instead")
        return words

    def _by_extension(self, choice: _Choice) -> list[bytes] | None:
        extension = os.path.splitext(choice.script)[1].lower()
        if extension == b".py":
            return [self._engine_python(), choice.script]
        if extension == b".sh":
            program = self._program(b"bash")
            if program is None:
                raise CannotRunError(
                    "there is no 'bash' on PATH: install it or write another shell into the "
                    "file's first line, as '#!/bin/sh'"
                )
            return [program, choice.script]
        return None

    def _engine_python(self) -> bytes:
        program = self._program(self._python) if self._python else None
        program = program or self._program(b"python3")
        if program is None:
            raise CannotRunError(
                f"the engine's Python {quoted(os.fsdecode(self._python))} does not exist any "
                "more and there is no 'python3' on PATH: restart the engine"
            )
        return program

    def _program(self, name: bytes) -> bytes | None:
        """Return the absolute path of a program, or None when there is none to execute."""
        if name not in self._found:
            self._found[name] = find_program(name, self._path)
        return self._found[name]

    def _missing(self, name: bytes) -> str:
        """Say why a program cannot be had."""
        shown = quoted(os.fsdecode(name))
        if b"/" not in name:
            return f"its interpreter {shown} is not on PATH"
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            if error.errno is not None and not isinstance(error, FileNotFoundError):
                return f"its interpreter {shown} cannot be used: {_reason(error)}"
            return f"its interpreter {shown} does not exist"
        if stat.S_ISDIR(mode):
            return f"its interpreter {shown} is a directory"
        return f"its interpreter {shown} may not be executed"

    def _compare_python(self, choice: _Choice, program: bytes) -> None:
        """Hint at a Python that is named by its path and is not the engine's."""
        if not self._python or _PYTHON.fullmatch(os.path.basename(program)) is None:
            return
        if _python_home(program) == _python_home(self._python):
            return
        choice.hints.append(
            Problem(
                "warning",
                f"its first line names {quoted(os.fsdecode(program))} but the engine's Python is "
                f"{quoted(os.fsdecode(self._python))}: it may not import what the engine can; "
                "write '#!/usr/bin/env python3' to run it with the engine's",
            )
        )


class _Choice:
    """One decision under way."""

    def __init__(self, script: bytes) -> None:
        self.script = script
        self.head = b""
        self.warnings: list[str] = []
        self.hints: list[Problem] = []

    @property
    def is_elf(self) -> bool:
        return self.head.startswith(_ELF)

    @property
    def mode(self) -> int:
        return os.stat(self.script).st_mode

    def hint_at_line_ends(self, words: list[bytes]) -> None:
        """A shell takes the carriage return of a Windows line end for part of a word."""
        if b"\r\n" in self.head and os.path.basename(words[0]) in _SHELLS:
            name = quoted(os.fsdecode(os.path.basename(words[0])))
            text = f"its lines end as on Windows (CRLF), which {name} does not understand"
            mend = f"sed -i 's/\\r$//' {quoted(os.fsdecode(self.script))}"
            self.hints.append(Problem("warning", f"{text}: {mend}"))


def find_program(name: bytes, path: bytes) -> bytes | None:
    """Look a program up as a shell does.

    Args:
        name: A name to look up in ``path``, or a path, which a relative
            working directory completes.
        path: Directories with ``:`` between them; an empty one is the working
            directory.

    Returns:
        Its absolute path, links in it kept, or None when no file of this name
        may be executed.
    """
    directories = [b""] if b"/" in name else path.split(b":")
    for directory in directories:
        candidate = os.path.join(directory, name)
        try:
            if not os.path.isabs(candidate):
                candidate = os.path.join(os.getcwdb(), candidate)
            if stat.S_ISREG(os.stat(candidate).st_mode) and os.access(candidate, os.X_OK):
                return candidate
        except (OSError, ValueError):
            continue
    return None


def _complete(choice: _Choice, words: list[bytes], arguments: tuple[str, ...]) -> Command:
    """Return the command with a plugin's own arguments."""
    argv = (*words, *map(os.fsencode, arguments))
    if any(b"\0" in word for word in argv):
        return Command((), "its arguments hold a NUL character, which no program can be given")
    return Command(argv, None, tuple(choice.warnings), tuple(choice.hints))


def _by_itself(choice: _Choice) -> list[bytes]:
    """Execute the file itself."""
    if os.access(choice.script, os.X_OK, effective_ids=True):
        return [choice.script]
    shown = os.fsdecode(choice.script)
    if not choice.mode & 0o111:
        raise CannotRunError(
            f"it is a compiled program without the exec bit: chmod +x {quoted(shown)}"
        )
    if os.statvfs(choice.script).f_flag & os.ST_NOEXEC:
        raise CannotRunError(
            "its file system is mounted noexec, which forbids compiled programs: "
            "move it to another one"
        )
    raise CannotRunError(f"the engine's user may not execute it: chmod a+x {quoted(shown)}")


def _read_head(script: bytes) -> bytes:
    """Read a file's start, never waiting for what turned into a FIFO meanwhile."""
    fd = os.open(script, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CannotRunError("it is no longer a regular file")
        return os.read(fd, HEAD_BYTES)
    finally:
        os.close(fd)


def _cannot_read(path: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"it cannot be read by the engine's user: chmod a+r {quoted(path)}"
    return f"it cannot be read: {_reason(error)}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _python_home(program: bytes) -> tuple[bytes, bytes | None]:
    """Tell two Pythons apart: the program, and the virtual environment that it is started from."""
    directory = os.path.dirname(program)
    for home in (directory, os.path.dirname(directory)):
        if os.path.exists(os.path.join(home, b"pyvenv.cfg")):
            return os.path.realpath(program), os.path.realpath(home)
    return os.path.realpath(program), None
