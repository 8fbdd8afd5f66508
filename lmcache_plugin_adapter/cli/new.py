# SPDX-License-Identifier: Apache-2.0
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

from lmcache_plugin_adapter.configuration.effective import read_effective
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
                raise UsageError(
                    f"--worker-id is for --role worker, found --role {self.role.value}"
                )
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
        config = _config(new_plugin)
        written = _write(new_plugin, config)
    except UsageError as error:
        return fail(error)
    except OSError as error:
        return fail(UsageError(f"cannot write {error.filename!r}: {error.strerror}"))
    width = max(len(path) for path, _ in written)
    print_line("Written:")
    for path, what in written:
        print_line(f"  {path:{width}}  {what}")
    config = shlex.quote(config)
    tests = shlex.quote(_join(new_plugin.directory, TESTS))
    print_line("Next:")
    for module, install in (("msgspec", "kit"), ("pytest", "test")):
        if importlib.util.find_spec(module) is None and new_plugin.language is Language.PYTHON:
            print_line(f"  pip install 'lmcache-plugin-adapter[{install}]'  # it needs {module}")
    print_line(f"  lmcache-plugins check -c {config} --strict{new_plugin.command_options}")
    print_line(f"  lmcache-plugins run -c {config}{new_plugin.command_options}")
    print_line(f"  pytest {tests}")
    return ExitStatus.OK


def _config(new_plugin: NewPlugin) -> str:
    """Return the configuration to try the plugin with: one whose locations have the plugin.

    An existing ``lmcache.yaml`` for other plugins stays as it is; the plugin gets its own.
    """
    for name in ("lmcache.yaml", f"{new_plugin.stem}.yaml"):
        config = _join(new_plugin.directory, name)
        if not os.path.lexists(config) or _names(config, new_plugin.directory):
            return config
    raise UsageError(
        f"{config!r} is there already, without {os.path.abspath(new_plugin.directory)!r} in its "
        "'runtime_plugin_locations': nothing was written"
    )


def _names(config: str, directory: str) -> bool:
    """Return whether the locations of a configuration have the directory."""
    from .lmcache_yaml import load_lmcache_yaml
    from .yaml_reader import ConfigError

    try:
        found = load_lmcache_yaml(config, {})
    except ConfigError:
        return False
    locations = read_effective(found.extra_config, found.runtime_plugin_locations, {}).locations
    return os.path.abspath(directory) in map(os.path.abspath, locations)


def _write(new_plugin: NewPlugin, config: str) -> list[tuple[str, str]]:
    """Write the missing files; return each path with its description."""
    python = new_plugin.language is Language.PYTHON
    stem = new_plugin.stem
    file = f"{stem}.{'py' if python else 'sh'}"
    directory = new_plugin.directory
    plugin = _join(directory, file)
    test = _join(directory, TESTS, f"test_{stem}.py")
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
    if not os.path.lexists(config):
        texts[config] = CONFIG
        written.append((config, "a configuration to try it with"))
    with _all_or_nothing() as done:
        for path, template in texts.items():
            text = re.sub(r"@[A-Z]+@", lambda found: values[found[0]], template)
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            with open(path, "x", encoding="utf-8") as out:
                done.append(path)
                os.fchmod(out.fileno(), 0o755 if path == plugin else 0o644)
                out.write(text)
    return written


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
