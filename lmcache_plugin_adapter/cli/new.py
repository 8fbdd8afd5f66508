"""``lmcache-plugins new``: a working plugin, its test and a configuration to try it with."""

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

from .console import fail, say
from .inputs import UsageError
from .new_choices import Language, RoleWord
from .new_templates import BASH, BASH_TEST, CONFIG, PYTHON, PYTHON_TEST

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = "_tests"
"""Nothing below a directory whose name starts with ``_`` is a plugin, so a location may have it."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        name: What the plugin is called after its role.
        role: Where it runs.
        language: What it is written in.
        directory: Where it is written.
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
            UsageError: No plugin of that role can be called so.
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
        """What ``check`` and ``run`` need so that the plugin runs."""
        if self.role is RoleWord.SERVER:
            return " --server"
        return f" --tp {self.worker_id + 1}" if self.worker_id else ""


def new(request: Request) -> int:
    """Write the files and say what to do next; return the exit status."""
    try:
        written, notes = _write(request)
    except UsageError as error:
        return fail(error)
    except OSError as error:
        return fail(UsageError(f"cannot write {error.filename!r}: {error.strerror}"))
    width = max(len(path) for path, _ in written)
    say("Written:")
    for path, what in written:
        say(f"  {path:{width}}  {what}")
    for note in notes:
        say(note)
    config = shlex.quote(_join(request.directory, "lmcache.yaml"))
    tests = shlex.quote(_join(request.directory, TESTS))
    say("Next:")
    for module, install in (("msgspec", "gallery"), ("pytest", "test")):
        if importlib.util.find_spec(module) is None and request.language is Language.PYTHON:
            say(f"  pip install 'lmcache-plugin-adapter[{install}]'  # it needs {module}")
    say(f"  lmcache-plugins check -c {config} --strict{request.command_options}")
    say(f"  lmcache-plugins run -c {config}{request.command_options}")
    say(f"  pytest {tests}")
    return 0


def _write(request: Request) -> tuple[list[tuple[str, str]], list[str]]:
    """Write what is not there; return paths with what they are, and what is to be said."""
    python = request.language is Language.PYTHON
    stem = request.stem
    file = f"{stem}.{'py' if python else 'sh'}"
    directory = request.directory
    plugin = _join(directory, file)
    test = _join(directory, TESTS, f"test_{stem}.py")
    config = _join(directory, "lmcache.yaml")
    for path in (plugin, test):
        if os.path.lexists(path):
            raise UsageError(f"{path!r} is there already: nothing was written")
    values = {
        "@STEM@": stem,
        "@FILE@": file,
        "@WHERE@": _where(request),
        "@CONFIG@": shlex.quote(config),
        "@OPTIONS@": request.command_options,
        "@DIRECTORY@": json.dumps(os.path.abspath(directory)),
        "@PLACE@": _place(request),
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
            f"'{config}' is left as it is: see that its 'runtime_plugin_locations' has "
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


def _where(request: Request) -> str:
    """Say where the plugin runs, as a docstring begins."""
    if request.worker_id is not None:
        return f"Runs on worker {request.worker_id}"
    return {
        RoleWord.SCHEDULER: "Runs on the scheduler",
        RoleWord.WORKER: "Runs on every worker",
        RoleWord.ALL: "Runs on the scheduler and on every worker",
        RoleWord.SERVER: "Runs beside LMCache's multiprocess server",
    }[request.role]


def _place(request: Request) -> str:
    """Return what the test tells ``run_plugin`` of the engine process."""
    role = "scheduler" if request.role is RoleWord.ALL else request.role.value
    return f'role="{role}"' + (f", worker_id={request.worker_id}" if request.worker_id else "")


def _join(directory: str, *names: str) -> str:
    return os.path.join("" if directory == "." else directory, *names)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[list[str]]:
    """Remove what was written when something cannot be."""
    done: list[str] = []
    try:
        yield done
    except BaseException:
        for path in done:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
