# SPDX-License-Identifier: Apache-2.0
"""Choose the command of a plugin: its shebang, the engine's Python, bash, or the file itself."""

from __future__ import annotations

import os
import stat

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.messages.wording import error_reason

from .program_lookup import find_program, is_other_python, why_missing
from .shebang import HEAD_BYTES, Shebang, read_env, read_shebang

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .installed_plugin import InstalledPlugin

_SHELLS = frozenset({b"sh", b"bash", b"dash", b"ksh", b"zsh"})
_ELF = b"\x7fELF"


@frozen
class PluginCommand:
    """How to start a plugin, or why it cannot start.

    Attributes:
        argv: The program's absolute path, its arguments, the plugin's path
            (unless it is the program) and the plugin's own arguments. Empty
            when the plugin cannot run.
        error: Why the plugin cannot run and how to repair it, for a line that
            starts with the plugin; None when it can run.
        warnings: What runs differently than the file specifies. The log shows one
            line for each when the plugin starts.
        hints: Advice to the plugin author, which only ``check`` shows.
    """

    argv: tuple[bytes, ...] = ()
    error: str | None = None
    warnings: tuple[str, ...] = ()
    hints: tuple[Problem, ...] = ()


class CannotRunError(Exception):
    """The plugin cannot run; the message has the reason and the repair."""


class Interpreters:
    """Choose the commands of plugins; each program is looked up once.

    Args:
        python: The interpreter that runs the engine.
        path: The PATH to look programs up in.
    """

    def __init__(self, python: str, path: str) -> None:
        self._python = os.fsencode(python)
        self._path = os.fsencode(path)
        self._found: dict[bytes, bytes | None] = {}

    def command(self, path: str, arguments: tuple[str, ...] = ()) -> PluginCommand:
        """Choose the command of a plugin file.

        The shebang decides. Without one, or if its interpreter does not exist,
        ``.py`` runs with the engine's Python and ``.sh`` with bash. A file with
        the exec bit and no shebang is executed.

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
            return PluginCommand((), str(error), tuple(choice.warnings), tuple(choice.hints))
        except OSError as error:
            return PluginCommand((), _cannot_read(path, error))
        choice.hint_at_line_ends(words)
        return _complete(choice, words, arguments)

    def entry_point(
        self, installed: InstalledPlugin, arguments: tuple[str, ...] = ()
    ) -> PluginCommand:
        """Choose the command of an installed plugin: always the engine's Python.

        Args:
            installed: A plugin without trouble.
            arguments: The plugin's own arguments.

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
            return PluginCommand((), str(error), tuple(choice.warnings), tuple(choice.hints))
        except UnicodeEncodeError:
            return PluginCommand(
                (), f"{quoted(installed.reference)} cannot be encoded in this locale"
            )
        return _complete(choice, words, arguments)

    def _words(self, choice: _Choice) -> list[bytes]:
        choice.head = _read_head(choice.script)
        if not choice.head:
            raise CannotRunError("the file is empty: write the plugin or remove it")
        shebang = read_shebang(choice.head)
        if shebang is not None:
            return self._by_shebang(choice, shebang)
        if choice.head.startswith(_ELF):
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
            "it names no interpreter: write its interpreter into the first line, as "
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
            return self._instead(choice, why_missing(shebang.interpreter), "")
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
                return self._instead(choice, why_missing(env.command[0]), env.hint)
            if b"/" in env.command[0]:
                self._compare_python(choice, program)
            if env.plain:
                return [program, *env.command[1:], choice.script]
        # Only env itself can apply variables and its other options.
        itself = self._program(shebang.interpreter) or self._program(b"env")
        if itself is None:
            return self._instead(choice, why_missing(shebang.interpreter), "")
        return [itself, *shebang.words[1:], choice.script]

    def _instead(self, choice: _Choice, why: str, hint: str) -> list[bytes]:
        """Fall back to the program of the extension, with one warning."""
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
        """Return the absolute path of a program, or None if there is no executable one."""
        if name not in self._found:
            self._found[name] = find_program(name, self._path)
        return self._found[name]

    def _compare_python(self, choice: _Choice, program: bytes) -> None:
        """Add a hint if the file names another Python than the engine's."""
        if not self._python or not is_other_python(program, self._python):
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
    """The state of one choice."""

    def __init__(self, script: bytes) -> None:
        self.script = script
        self.head = b""
        self.warnings: list[str] = []
        self.hints: list[Problem] = []

    @property
    def mode(self) -> int:
        return os.stat(self.script).st_mode

    def hint_at_line_ends(self, words: list[bytes]) -> None:
        """Add a hint about Windows line ends: a shell reads the carriage return as text."""
        if b"\r\n" in self.head and os.path.basename(words[0]) in _SHELLS:
            name = quoted(os.fsdecode(os.path.basename(words[0])))
            text = f"its lines end as on Windows (CRLF), which {name} does not understand"
            repair = f"sed -i 's/\\r$//' {quoted(os.fsdecode(self.script))}"
            self.hints.append(Problem("warning", f"{text}: {repair}"))


def _complete(choice: _Choice, words: list[bytes], arguments: tuple[str, ...]) -> PluginCommand:
    """Append the plugin's own arguments to its command."""
    argv = (*words, *map(os.fsencode, arguments))
    if any(b"\0" in word for word in argv):
        return PluginCommand(
            (), "its arguments contain a NUL character, which no program can receive"
        )
    return PluginCommand(argv, None, tuple(choice.warnings), tuple(choice.hints))


def _by_itself(choice: _Choice) -> list[bytes]:
    """Return the command that executes the file itself."""
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
    """Read the start of a file. A FIFO that replaced it meanwhile cannot block this."""
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
    return f"it cannot be read: {error_reason(error)}"
