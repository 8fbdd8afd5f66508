"""``lmcache-plugins new``: create a plugin, its test and a configuration from templates."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name

from .console import ExitStatus, fail, print_line
from .inputs import UsageError
from .new_templates import BASH, BASH_TEST, CONFIG, PYTHON, PYTHON_TEST, Language, RoleWord

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = "_tests"
"""Files below a directory whose name starts with ``_`` are not plugins."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class NewPlugin:
    """The plugin to create.

    Attributes:
        name: Its name without the role.
        role: Where it runs.
        language: Its language.
        directory: Where to write the files.
        worker_id: The only worker that it runs on, if given.
    """

    name: str
    role: RoleWord
    language: Language
    directory: str
    worker_id: int | None = None

    @property
    def stem(self) -> str:
        """The plugin's name.

        Raises:
            UsageError: The name or the worker id is not possible.
        """
        words = [self.role.value]
        if self.worker_id is not None:
            if self.role is not RoleWord.WORKER:
                raise UsageError(f"--worker-id is for --role worker: a {self.role.value} has none")
            words.append(str(self.worker_id))
        own = self.name.strip().replace("-", "_").replace(" ", "_")
        prefix = f"{'_'.join(words)}_"
        own = own.removeprefix(prefix).removeprefix(f"{self.role.value}_")
        if not _NAME.fullmatch(own):
            raise UsageError(
                f"no plugin can be called {self.name!r}: a name is letters, digits and '_', "
                "and begins with a letter"
            )
        stem = prefix + own
        parsed = parse_name(f"{stem}.py")
        if not isinstance(parsed, PluginName) or parsed.worker_id != self.worker_id:
            raise UsageError(f"{stem!r} would not be read as a plugin of {self.role.value}")
        return stem

    @property
    def command_options(self) -> str:
        """The options with which ``check`` and ``run`` run the plugin."""
        if self.role is RoleWord.SERVER:
            return " --server"
        return f" --tp {self.worker_id + 1}" if self.worker_id else ""


def new(new_plugin: NewPlugin) -> int:
    """Write the files and print the next commands; return the exit status."""
    try:
        written, notes = _write(new_plugin)
    except UsageError as error:
        return fail(error)
    except OSError as error:
        return fail(UsageError(f"cannot write {error.filename!r}: {error.strerror}"))
    width = max(len(path) for path, _ in written)
    print_line("Written:")
    for path, what in written:
        print_line(f"  {path:{width}}  {what}")
    for note in notes:
        print_line(note)
    config = shlex.quote(_join(new_plugin.directory, "lmcache.yaml"))
    tests = shlex.quote(_join(new_plugin.directory, TESTS))
    print_line("Next:")
    for module, install in (("msgspec", "gallery"), ("pytest", "test")):
        if importlib.util.find_spec(module) is None and new_plugin.language is Language.PYTHON:
            print_line(f"  pip install 'lmcache-plugin-adapter[{install}]'  # it needs {module}")
    print_line(f"  lmcache-plugins check -c {config} --strict{new_plugin.command_options}")
    print_line(f"  lmcache-plugins run -c {config}{new_plugin.command_options}")
    print_line(f"  pytest {tests}")
    return ExitStatus.OK


def _write(new_plugin: NewPlugin) -> tuple[list[tuple[str, str]], list[str]]:
    """Write the missing files; return each path with its description, and notes for the user."""
    python = new_plugin.language is Language.PYTHON
    stem = new_plugin.stem
    file = f"{stem}.{'py' if python else 'sh'}"
    directory = new_plugin.directory
    plugin = _join(directory, file)
    test = _join(directory, TESTS, f"test_{stem}.py")
    config = _join(directory, "lmcache.yaml")
    for path in (plugin, test):
        if os.path.lexists(path):
            raise UsageError(f"{path!r} is there already: nothing was written")
    values = {
        "@STEM@": stem,
        "@FILE@": file,
        "@WHERE@": _where(new_plugin),
        "@CONFIG@": shlex.quote(config),
        "@OPTIONS@": new_plugin.command_options,
        "@DIRECTORY@": json.dumps(os.path.abspath(directory)),
        "@PLACE@": _place(new_plugin),
        "@SETTINGS@": "settings: {interval: 10}" if python else 'env: {INTERVAL: "10"}',
    }
    written = [(plugin, "the plugin"), (test, "its test")]
    texts = {plugin: PYTHON if python else BASH, test: PYTHON_TEST if python else BASH_TEST}
    notes = []
    if not os.path.lexists(config):
        texts[config] = CONFIG
        written.append((config, "a configuration to try it with"))
    elif os.path.abspath(directory) not in _read(config):
        notes.append(
            f"'{config}' is left as it is: make sure that its 'runtime_plugin_locations' has "
            f"'{os.path.abspath(directory)}'"
        )
    with _all_or_nothing() as done:
        for path, template in texts.items():
            text = re.sub(r"@[A-Z]+@", lambda found: values[found[0]], template)
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            with open(path, "x", encoding="utf-8") as out:
                done.append(path)
                os.fchmod(out.fileno(), 0o755 if path == plugin else 0o644)
                out.write(text)
    return written, notes


def _where(new_plugin: NewPlugin) -> str:
    """Return where the plugin runs, as the start of a docstring."""
    if new_plugin.worker_id is not None:
        return f"Runs on worker {new_plugin.worker_id}"
    return {
        RoleWord.SCHEDULER: "Runs on the scheduler",
        RoleWord.WORKER: "Runs on every worker",
        RoleWord.ALL: "Runs on the scheduler and on every worker",
        RoleWord.SERVER: "Runs beside LMCache's multiprocess server",
    }[new_plugin.role]


def _place(new_plugin: NewPlugin) -> str:
    """Return the test's arguments of ``run_plugin`` for the engine process."""
    role = "scheduler" if new_plugin.role is RoleWord.ALL else new_plugin.role.value
    return f'role="{role}"' + (
        f", worker_id={new_plugin.worker_id}" if new_plugin.worker_id else ""
    )


def _join(directory: str, *names: str) -> str:
    return os.path.join("" if directory == "." else directory, *names)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[list[str]]:
    """Remove the files that were written if one cannot be written."""
    done: list[str] = []
    try:
        yield done
    except BaseException:
        for path in done:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
